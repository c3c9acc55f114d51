//! The connection: an argument, or a field of one.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprPath, FnArg, Ident, Member, Pat, PatIdent, Result, Signature, Type};

use crate::function::arguments;

pub(crate) struct Connection {
    /// What names the session in the body.
    pub(crate) inner: TokenStream,
    /// What the lock is taken on.
    pub(crate) backend: TokenStream,
    /// A field of `self`, which stands for the session in the body.
    field: Option<TokenStream>,
    /// Whether the body moves all that it names. With a field it borrows: a closure that moves
    /// would take `self` as a whole, and with it the field that the lock is taken on.
    pub(crate) moves: bool,
}

impl Connection {
    /// The connection that the option `conn` names, or the first argument that is a `&mut`.
    pub(crate) fn find(signature: &mut Signature, chosen: Option<&Expr>) -> Result<Self> {
        match chosen {
            None => Self::argument(signature, |_, ty| is_mut(ty))
                .ok_or_else(|| Error::new(signature.ident.span(), none(signature))),
            Some(Expr::Field(field)) => Self::field(signature, field),
            Some(chosen) => match name(chosen) {
                Some(name) if name != "self" => {
                    Self::argument(signature, |argument, _| argument.unraw() == name.unraw())
                        .ok_or_else(|| Error::new(name.span(), unknown(&name, signature)))
                }
                _ => Err(Error::new_spanned(chosen, NEITHER)),
            },
        }
    }

    /// A `mut` before the argument's name moves to the body: outside, the argument is used only
    /// once.
    fn argument(signature: &mut Signature, is_it: impl Fn(&Ident, &Type) -> bool) -> Option<Self> {
        let (pattern, ty) = signature.inputs.iter_mut().find_map(|argument| {
            let FnArg::Typed(argument) = argument else {
                return None;
            };
            match &mut *argument.pat {
                Pat::Ident(pattern) if is_it(&pattern.ident, &argument.ty) => {
                    Some((pattern, &*argument.ty))
                }
                _ => None,
            }
        })?;
        let PatIdent {
            mutability, ident, ..
        } = pattern;
        let mutability = mutability.take();
        Some(Self {
            inner: quote!(#mutability #ident),
            backend: if is_mut(ty) {
                quote!(&mut *#ident)
            } else {
                quote!(#ident)
            },
            field: None,
            moves: true,
        })
    }

    fn field(signature: &Signature, field: &syn::ExprField) -> Result<Self> {
        let root = root(field).ok_or_else(|| Error::new_spanned(field, NEITHER))?;
        let is_self = root == "self";
        let argument = |argument: &&FnArg| match argument {
            FnArg::Receiver(_) => is_self,
            FnArg::Typed(typed) => {
                matches!(&*typed.pat, Pat::Ident(pattern) if pattern.ident.unraw() == root.unraw())
            }
        };
        let ty = match signature.inputs.iter().find(argument) {
            Some(FnArg::Receiver(receiver)) => &*receiver.ty,
            Some(FnArg::Typed(typed)) => &*typed.ty,
            None => return Err(Error::new(root.span(), unknown(&root, signature))),
        };
        let inner = match &field.member {
            // `self` cannot be anything else in the body, while the field's name could be a local.
            _ if is_self => Ident::new("session", Span::mixed_site()),
            Member::Named(name) if !arguments(signature).any(|argument| argument == name) => {
                name.clone()
            }
            member => return Err(Error::new(member.span(), NO_NAME)),
        };
        // Errors about the borrow should point at the option.
        let span = root.span();
        let backend = if is_shared(ty) {
            quote_spanned!(span=> &#field)
        } else {
            quote_spanned!(span=> &mut #field)
        };
        Ok(Self {
            inner: inner.to_token_stream(),
            backend,
            field: is_self.then(|| field.to_token_stream()),
            moves: false,
        })
    }

    /// The body, with the session wherever it names the field.
    pub(crate) fn in_body(&self, body: TokenStream) -> TokenStream {
        match &self.field {
            Some(field) => {
                let field: Vec<_> = field.clone().into_iter().map(|t| t.to_string()).collect();
                replace(body, &field, &self.inner)
            }
            None => body,
        }
    }
}

const NEITHER: &str = "the connection is an argument, or a field, as in `conn = self.conn`";
const NO_NAME: &str =
    "this field has no name that the body could use; pass the connection as an argument";

fn none(signature: &Signature) -> String {
    let name = &signature.ident;
    if signature.receiver().is_some() {
        format!(
            "`{name}` has no `&mut` argument to take the lock on; name the field of `self` that is the connection, as in `conn = self.conn`"
        )
    } else {
        format!("`{name}` has no `&mut` argument to take the lock on; `conn = …` names another")
    }
}

fn unknown(name: &Ident, signature: &Signature) -> String {
    format!("`{name}` is not an argument of `{}`", signature.ident)
}

fn is_mut(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_some())
}

fn is_shared(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_none())
}

fn name(expression: &Expr) -> Option<Ident> {
    match expression {
        Expr::Path(ExprPath { path, .. }) => path.get_ident().cloned(),
        _ => None,
    }
}

fn root(field: &syn::ExprField) -> Option<Ident> {
    match &*field.base {
        Expr::Field(field) => root(field),
        base => name(base),
    }
}

/// Puts `session` in the place of each `field`, even in the arguments of macros. A call of a method
/// with that name is left as it is.
fn replace(tokens: TokenStream, field: &[String], session: &TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let (mut replaced, mut at) = (TokenStream::new(), 0);
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at..];
        if is_field(rest, field) {
            let span = rest[field.len() - 1].span();
            replaced.extend(quote_spanned!(span=> (*#session)));
            at += field.len();
            continue;
        }
        replaced.extend([match token {
            TokenTree::Group(group) => {
                let inside = replace(group.stream(), field, session);
                let mut new = Group::new(group.delimiter(), inside);
                new.set_span(group.span());
                TokenTree::Group(new)
            }
            token => token.clone(),
        }]);
        at += 1;
    }
    replaced
}

fn is_field(tokens: &[TokenTree], field: &[String]) -> bool {
    let Some((first, rest)) = tokens.split_at_checked(field.len()) else {
        return false;
    };
    let is_call = match rest {
        [TokenTree::Group(group), ..] => group.delimiter() == proc_macro2::Delimiter::Parenthesis,
        [TokenTree::Punct(one), TokenTree::Punct(two), ..] => {
            one.as_char() == ':' && two.as_char() == ':'
        }
        _ => false,
    };
    !is_call
        && first
            .iter()
            .zip(field)
            .all(|(token, name)| token.to_string() == *name)
}
