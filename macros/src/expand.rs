//! The function with its body under the lock.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Block, ItemFn, Result, Type};

use crate::connection::Connection;
use crate::function::{can_be_named, result};
use crate::options::Options;
use crate::template;

pub(crate) fn locked(options: &Options, function: ItemFn) -> Result<TokenStream> {
    let ItemFn {
        attrs,
        vis,
        mut sig,
        block,
    } = function;
    let returned = result(&sig, options.attempt.is_some())?.clone();
    let key = match &options.key {
        Some(template) => template::key(template, &sig)?,
        None => {
            let name = sig.ident.unraw().to_string();
            quote!(::std::concat!(::std::module_path!(), "::", #name))
        }
    };
    let connection = Connection::find(&mut sig, options.conn.as_ref())?;
    let body = body(&connection, &returned, &block);
    let lock = lock(options, &key, &connection.backend);
    // An error about the result's type should point at that type.
    let run = run(options, &body, returned.span());
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            #lock #run
        }
    })
}

fn body(connection: &Connection, returned: &Type, block: &Block) -> TokenStream {
    let inner = &connection.inner;
    let moves = connection.moves.then(|| quote!(move));
    let block = connection.in_body(block.to_token_stream());
    // The body may not use the connection.
    let argument = quote!(#[allow(unused_variables)] #inner);
    if can_be_named(returned) {
        quote!(#moves |#argument| -> #returned #block)
    } else {
        quote!(#moves |#argument| #block)
    }
}

fn lock(options: &Options, key: &TokenStream, backend: &TokenStream) -> TokenStream {
    let shared = options.shared.map(|span| quote_spanned!(span=> .shared()));
    let timeout = options.timeout.map(|timeout| {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        quote!(.timeout(::std::time::Duration::from_millis(#millis)))
    });
    let pglock = match &options.pglock {
        Some(path) => quote!(#path),
        None => quote!(::pglock),
    };
    let (key_name, lock) = (hidden("key"), hidden("lock"));
    quote! {
        let #key_name = #key;
        let mut #lock = #pglock::Lock::new(#backend, #key_name) #shared #timeout;
    }
}

/// A variable that the function's own code can neither see nor hide.
fn hidden(name: &str) -> syn::Ident {
    syn::Ident::new(name, proc_macro2::Span::mixed_site())
}

fn run(options: &Options, body: &TokenStream, span: proc_macro2::Span) -> TokenStream {
    let form = |plain: &str, in_transaction: &str| {
        let name = match options.transaction {
            Some(_) => in_transaction,
            None => plain,
        };
        syn::Ident::new(name, span)
    };
    let lock = hidden("lock");
    if options.attempt.is_some() {
        let form = form("try_run", "try_run_in_transaction");
        return quote_spanned! {span=>
            ::std::result::Result::map(#lock.#form(#body), ::std::option::Option::flatten)
        };
    }
    match &options.on_conflict {
        Some(handler) => {
            let form = form("run_or_else", "run_in_transaction_or_else");
            quote_spanned!(span=> #lock.#form(#body, #handler))
        }
        None => {
            let form = form("run", "run_in_transaction");
            quote_spanned!(span=> #lock.#form(#body))
        }
    }
}
