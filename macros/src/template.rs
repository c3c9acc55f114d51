//! The key: a name with arguments in braces.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::ext::IdentExt;
use syn::{Error, Ident, Index, LitStr, Member, Result, Signature};
use unicode_ident::{is_xid_continue, is_xid_start};

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
fn value(text: &str, signature: &Signature, span: Span) -> Result<TokenStream> {
    let mut parts = text.split('.');
    let name = parts.next().unwrap_or_default();
    let root = match name {
        "self" => signature.receiver().map(|_| Ident::new("self", span)),
        name => arguments(signature)
            .find(|argument| argument.unraw() == unraw(name))
            .cloned(),
    };
    let Some(mut root) = root else {
        return Err(Error::new(span, unknown(name, signature)));
    };
    root.set_span(span);
    let mut expression = quote_spanned!(span=> #root);
    for part in parts {
        let Some(field) = field(part, span) else {
            return Err(Error::new(
                span,
                format!("`{{{text}}}` in the key is neither an argument nor a field of one"),
            ));
        };
        expression = quote_spanned!(span=> #expression.#field);
    }
    Ok(expression)
}

/// A keyword is a name here, with `r#` as in code or without as in `format!`.
fn field(text: &str, span: Span) -> Option<Member> {
    let is_digit = |c: char| c.is_ascii_digit();
    if text.chars().all(is_digit) {
        let index = text.parse().ok()?;
        return Some(Member::Unnamed(Index { index, span }));
    }
    let name = unraw(text);
    let may_start = |c: char| c == '_' || is_xid_start(c);
    let is_name = name.starts_with(may_start)
        && name.chars().all(is_xid_continue)
        && !["_", "self", "Self", "super", "crate"].contains(&name);
    is_name.then(|| Member::Named(Ident::new_raw(name, span)))
}

fn unraw(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}

fn unknown(name: &str, signature: &Signature) -> String {
    let names: Vec<_> = arguments(signature)
        .map(|argument| format!("`{argument}`"))
        .collect();
    format!(
        "`{{{name}}}` in the key is not an argument of `{}`; there are {}",
        signature.ident,
        names.join(", ")
    )
}
