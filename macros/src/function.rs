//! What must be known of the function: its arguments, its connection, its result.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Error, FnArg, GenericArgument, Ident, Pat, PatIdent, PatType, PathArguments, PathSegment,
    Result, ReturnType, Signature, Type,
};

/// The arguments that have a name.
pub(crate) fn arguments(signature: &Signature) -> impl Iterator<Item = &Ident> {
    signature
        .inputs
        .iter()
        .filter_map(|argument| match argument {
            FnArg::Typed(PatType { pat, .. }) => match &**pat {
                Pat::Ident(PatIdent { ident, .. }) => Some(ident),
                _ => None,
            },
            FnArg::Receiver(_) => None,
        })
}

/// The argument to lock on, as the pattern that takes its place in the body, and as the backend.
///
/// A `mut` before its name moves to the body: outside it is used once.
pub(crate) fn connection(
    signature: &mut Signature,
    chosen: Option<&Ident>,
) -> Result<(TokenStream, TokenStream)> {
    let name = signature.ident.clone();
    let mut typed = signature.inputs.iter_mut().filter_map(|argument| {
        let FnArg::Typed(PatType { pat, ty, .. }) = argument else {
            return None;
        };
        match &mut **pat {
            Pat::Ident(pattern) => Some((pattern, &**ty)),
            _ => None,
        }
    });
    let is_mut =
        |ty: &Type| matches!(ty, Type::Reference(reference) if reference.mutability.is_some());
    let found = typed.find(|(pattern, ty)| match chosen {
        Some(chosen) => pattern.ident == *chosen,
        None => is_mut(ty),
    });
    let Some((pattern, ty)) = found else {
        return Err(match chosen {
            Some(chosen) => Error::new(
                chosen.span(),
                format!("`{chosen}` is no argument of `{name}`"),
            ),
            None => Error::new(
                name.span(),
                format!(
                    "`{name}` has no `&mut` argument to take the lock on; `conn = …` names another"
                ),
            ),
        });
    };
    let (mutability, ident) = (pattern.mutability.take(), &pattern.ident);
    let backend = if is_mut(ty) {
        quote!(&mut *#ident)
    } else {
        quote!(#ident)
    };
    Ok((quote!(#mutability #ident), backend))
}

/// The function's result type, where it is one.
pub(crate) fn result(signature: &Signature, attempt: bool) -> Result<&Type> {
    if let Some(token) = &signature.asyncness {
        return Err(Error::new_spanned(
            token,
            "pglock is synchronous: an `async fn` cannot be run under its lock",
        ));
    }
    let ty = match &signature.output {
        ReturnType::Default => {
            return Err(Error::new(signature.ident.span(), NO_RESULT));
        }
        ReturnType::Type(_, ty) => &**ty,
    };
    let Some(last) = last_segment(ty).filter(|last| !is_no_result(&last.ident)) else {
        return Err(Error::new_spanned(ty, NO_RESULT));
    };
    if attempt && first_argument(last).is_some_and(|ok| !is_option(ok)) {
        return Err(Error::new_spanned(
            ty,
            "with `try` a function returns `Result<Option<…>, …>`: `None` says that somebody else holds the lock",
        ));
    }
    Ok(ty)
}

const NO_RESULT: &str = "a locked function returns a `Result`: taking the lock can fail";

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

/// Names that cannot be an alias of `Result`. The compiler itself tells of any other.
fn is_no_result(name: &Ident) -> bool {
    let names = "Option Vec String Box bool char str f32 f64 \
                 i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize";
    names.split(' ').any(|no_result| name == no_result)
}

fn first_argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn is_option(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|last| last.ident == "Option")
}

/// Whether a type can be written as that of a closure.
pub(crate) fn can_be_named(ty: &Type) -> bool {
    ty.to_token_stream()
        .into_iter()
        .all(|token| token.to_string() != "impl")
}
