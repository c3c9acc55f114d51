//! The attribute `#[pglock::locked]`. It is part of pglock, behind its feature `macros`.

mod connection;
mod expand;
mod function;
mod options;
mod template;

use proc_macro::TokenStream;
use syn::parse_macro_input;

// Documented, and tested, where pglock re-exports it.
#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn locked(options: TokenStream, function: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as options::Options);
    let function = parse_macro_input!(function as syn::ItemFn);
    expand::locked(&options, function)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
