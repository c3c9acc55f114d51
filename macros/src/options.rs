//! The options in the attribute's parentheses.

use std::time::Duration;

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, Ident, LitStr, Path, Result, Token};

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) key: Option<LitStr>,
    pub(crate) conn: Option<Expr>,
    pub(crate) pglock: Option<Path>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_conflict: Option<Path>,
    pub(crate) shared: Option<Span>,
    pub(crate) transaction: Option<Span>,
    pub(crate) attempt: Option<Span>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            options.parse_one(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        options.check()?;
        Ok(options)
    }
}

impl Options {
    fn parse_one(&mut self, input: ParseStream<'_>) -> Result<()> {
        let name = input.call(Ident::parse_any)?;
        match name.to_string().as_str() {
            "key" => once(&mut self.key, &name, || value(input)),
            "conn" => once(&mut self.conn, &name, || value(input)),
            "crate" => once(&mut self.pglock, &name, || value(input)),
            "timeout" => once(&mut self.timeout, &name, || duration(&value(input)?)),
            "on_conflict" => once(&mut self.on_conflict, &name, || value(input)),
            "shared" => once(&mut self.shared, &name, || Ok(name.span())),
            "transaction" => once(&mut self.transaction, &name, || Ok(name.span())),
            "try" => once(&mut self.attempt, &name, || Ok(name.span())),
            _ => Err(Error::new(
                name.span(),
                format!(
                    "no such option: `{name}`; there are `key`, `conn`, `timeout`, `shared`, `transaction`, `try`, `on_conflict` and `crate`"
                ),
            )),
        }
    }

    fn check(&self) -> Result<()> {
        let Some(handler) = &self.on_conflict else {
            return Ok(());
        };
        let problem = if self.attempt.is_some() {
            "`on_conflict` and `try` are two answers to the same question: leave one out"
        } else if self.timeout.is_none() {
            "`on_conflict` without a `timeout` would never be called; `timeout = \"0ms\"` does not wait at all"
        } else {
            return Ok(());
        };
        Err(Error::new_spanned(handler, problem))
    }
}

fn once<T>(option: &mut Option<T>, name: &Ident, parse: impl FnOnce() -> Result<T>) -> Result<()> {
    if option.is_some() {
        return Err(Error::new(name.span(), format!("`{name}` is given twice")));
    }
    *option = Some(parse()?);
    Ok(())
}

fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn duration(literal: &LitStr) -> Result<Duration> {
    let text = literal.value();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            Error::new(
                literal.span(),
                format!("not a duration: {text:?}; write a whole number with its unit, `ms`, `s`, `m` or `h`, as in \"500ms\""),
            )
        })
}
