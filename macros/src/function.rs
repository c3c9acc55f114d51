//! What the attribute must know of the function: its arguments and its result.

use quote::ToTokens;
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

/// The function's result type, if it is a `Result`.
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

/// Names that cannot be an alias of `Result`. The compiler itself reports any other.
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

/// Whether a type can be written as a closure's return type.
pub(crate) fn can_be_named(ty: &Type) -> bool {
    ty.to_token_stream()
        .into_iter()
        .all(|token| token.to_string() != "impl")
}
