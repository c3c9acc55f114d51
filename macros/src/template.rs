//! The key: a name with arguments in braces.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::{Error, Ident, Index, LitStr, Result, Signature};

use crate::function::arguments;

/// The expression that makes the key from the arguments.
pub(crate) fn key(template: &LitStr, signature: &Signature) -> Result<TokenStream> {
    let span = template.span();
    let text = template.value();
    let (mut format, mut values) = (String::new(), Vec::new());
    let mut rest = text.as_str();
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(brace);
        format += before;
        if from.starts_with("{{") || from.starts_with("}}") {
            format += &from[..2];
            rest = &from[2..];
            continue;
        }
        let Some((inside, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}'))
        else {
            return Err(Error::new(
                span,
                "an unmatched brace in the key; `{{` and `}}` stand for braces",
            ));
        };
        let (name, spec) = match inside.split_once(':') {
            Some((name, spec)) => (name, format!(":{spec}")),
            None => (inside, String::new()),
        };
        values.push(value(name.trim(), signature, span)?);
        format += &format!("{{{spec}}}");
        rest = after;
    }
    format += rest;
    let format = LitStr::new(&format, span);
    Ok(quote_spanned!(span=> ::std::format!(#format #(, #values)*)))
}

/// An argument, `self`, or a field of one.
fn value(name: &str, signature: &Signature, span: Span) -> Result<TokenStream> {
    let mut parts = name.split('.');
    let root = parts.next().unwrap_or_default();
    let known = match root {
        "self" => signature.receiver().is_some(),
        root => arguments(signature).any(|argument| argument == root),
    };
    if !known {
        return Err(Error::new(span, unknown(root, signature)));
    }
    let root = Ident::new(root, span);
    let mut expression = quote_spanned!(span=> #root);
    for part in parts {
        expression = if let Ok(field) = syn::parse_str::<Ident>(part) {
            let field = Ident::new(&field.to_string(), span);
            quote_spanned!(span=> #expression.#field)
        } else if let Ok(field) = part.parse::<u32>() {
            let field = Index { index: field, span };
            quote_spanned!(span=> #expression.#field)
        } else {
            return Err(Error::new(
                span,
                format!("`{{{name}}}` in the key is neither an argument nor a field of one"),
            ));
        };
    }
    Ok(expression)
}

fn unknown(name: &str, signature: &Signature) -> String {
    let names: Vec<_> = arguments(signature)
        .map(|argument| format!("`{argument}`"))
        .collect();
    format!(
        "`{{{name}}}` in the key is no argument of `{}`; there are {}",
        signature.ident,
        names.join(", ")
    )
}
