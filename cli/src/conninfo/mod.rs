//! What is wrong with a connection string. No part of it is shown, since any part may be of a password:
//! only the scheme in front of it, and the names of parameters that no password comes before.

mod parameters;

use parameters::{FOREIGN, PARAMETERS};

/// What libpq would read otherwise than it is meant: it would take a part of the password for the name of
/// a host or a database, ask for it on the network, and show it.
pub(crate) fn misread(text: &str) -> Option<&'static str> {
    let uri = Uri::of(after_scheme(text)?);
    match uri.hosts.contains('@') || uri.path.contains('@') {
        true => Some(
            "there is an '@' where none can be; in the name of a user or a database and in a password, \
             write @ as %40, / as %2F and ? as %3F",
        ),
        false => None,
    }
}

/// The parts as libpq finds them.
struct Uri<'t> {
    hosts: &'t str,
    path: &'t str,
    query: &'t str,
}

impl<'t> Uri<'t> {
    fn of(rest: &'t str) -> Self {
        let split = |text: &'t str, at: &[char]| text.split_at(text.find(at).unwrap_or(text.len()));
        let (_user, after) = split(rest, &['@', '/']);
        let (hosts, rest) = split(after.strip_prefix('@').unwrap_or(rest), &['/', '?']);
        let (path, query) = split(rest, &['?']);
        Self { hosts, path, query }
    }
}

/// Why libpq refused it, if it could not even read it.
pub(crate) fn fault(text: &str) -> Option<String> {
    let form =
        "it must be a URI, postgresql://USER@HOST/DATABASE, or pairs, host=HOST dbname=DATABASE";
    if text.starts_with(['"', '\'']) {
        return Some(format!("it begins with a quotation mark; {form}"));
    }
    if text.starts_with(char::is_whitespace) && text.contains("://") {
        return Some(format!("it begins with a space; {form}"));
    }
    if let Some(rest) = after_scheme(text) {
        return fault_of_uri(rest);
    }
    if let Some(rest) = text.strip_prefix("jdbc:") {
        let hint = match after_scheme(rest) {
            Some(_) => "leave out jdbc:, and what libpq does not know behind the ?",
            None => "write postgresql://USER@HOST/DATABASE",
        };
        return Some(format!("jdbc: is the form of Java's drivers; {hint}"));
    }
    match text.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => Some(of_scheme(scheme)),
        _ if !text.contains('=') && !text.trim().is_empty() => Some(form.to_owned()),
        _ => fault_of_pairs(text),
    }
}

pub(crate) fn is_uri(text: &str) -> bool {
    after_scheme(text).is_some()
}

fn after_scheme(text: &str) -> Option<&str> {
    let schemes = ["postgresql://", "postgres://"];
    schemes.iter().find_map(|scheme| text.strip_prefix(scheme))
}

fn is_scheme(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(rest)
}

fn of_scheme(scheme: &str) -> String {
    let known = "libpq knows postgresql:// and postgres://";
    let lower = scheme.to_ascii_lowercase();
    let (database, driver) = lower.split_once('+').unwrap_or((&lower, ""));
    match (database, driver) {
        ("postgresql" | "postgres", "") => {
            format!("the scheme is {scheme}://; write it in small letters")
        }
        ("postgresql" | "postgres", _) => format!(
            "the scheme is {scheme}://, and {known}; leave out +{driver}, which names the driver of another tool"
        ),
        _ => format!("the scheme is {scheme}://, and {known}"),
    }
}

fn fault_of_uri(rest: &str) -> Option<String> {
    let Uri { hosts, query, .. } = Uri::of(rest);
    if hosts.contains('[') && !hosts.contains(']') {
        return Some("the '[' before an IPv6 address has no ']' behind it".to_owned());
    }
    if !are_escapes(rest) {
        let text = "a '%' that two hexadecimal digits do not follow; in a password, write % as %25";
        return Some(text.to_owned());
    }
    if !hosts.split(',').all(has_port) {
        return Some(
            "behind the host's ':' is no number of a port; in a password, write / as %2F, @ as %40 and : as %3A"
                .to_owned(),
        );
    }
    let mut secret = query.contains('@');
    let pairs = query.strip_prefix('?').filter(|pairs| !pairs.is_empty());
    for (i, pair) in pairs.iter().flat_map(|pairs| pairs.split('&')).enumerate() {
        match pair.split_once('=') {
            None => return Some("behind the '?' is a parameter without '='".to_owned()),
            Some((_, value)) if value.contains('=') => {
                return Some(
                    "behind the '?' is a parameter with two '='; write the second as %3D"
                        .to_owned(),
                );
            }
            Some((name, _)) if !PARAMETERS.contains(&name) => {
                return Some(unknown(name, i, secret));
            }
            Some((name, _)) => secret |= is_secret(name),
        }
    }
    rest.contains(' ')
        .then(|| "a space; in a URI, write it as %20".to_owned())
}

fn are_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2).unwrap_or_default();
        digits.len() == 2 && digits != b"00" && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

fn has_port(host: &str) -> bool {
    let after = match host.rsplit_once(']') {
        Some((_, after)) => after,
        None => host.find(':').map_or("", |colon| &host[colon..]),
    };
    match after.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()),
        None => after.is_empty(),
    }
}

fn fault_of_pairs(text: &str) -> Option<String> {
    let mut secret = false;
    let mut rest = text.trim_start();
    for i in 0.. {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace());
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        let Some(value) = after.trim_start().strip_prefix('=') else {
            return Some(
                "a word without '='; a value with a space needs quotes, as password='two words'"
                    .to_owned(),
            );
        };
        if !PARAMETERS.contains(&name) {
            return Some(unknown(name, i, secret));
        }
        secret |= is_secret(name);
        let Some(after) = after_value(value.trim_start()) else {
            return Some(
                "a ' that opens a value is not closed; within one, write ' as \\' and \\ as \\\\"
                    .to_owned(),
            );
        };
        rest = after.trim_start();
    }
    None
}

/// What follows a value; `None`: its quotation mark is not closed.
fn after_value(text: &str) -> Option<&str> {
    let quoted = text.strip_prefix('\'');
    let value = quoted.unwrap_or(text);
    let mut characters = value.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, quoted.is_some()) {
            ('\\', _) => drop(characters.next()),
            ('\'', true) => return Some(&value[at + 1..]),
            (space, false) if space.is_ascii_whitespace() => return Some(&value[at..]),
            _ => {}
        }
    }
    quoted.is_none().then_some("")
}

fn is_secret(name: &str) -> bool {
    name.contains("pass") || name.contains("secret") || name.contains("key")
}

fn unknown(name: &str, place: usize, secret: bool) -> String {
    let lower = name.to_ascii_lowercase();
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == lower);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let shown = !secret && !name.is_empty() && name.bytes().all(is_name);
    match (shown, foreign) {
        (true, Some((_, hint))) => format!("libpq does not know the parameter {name}: {hint}"),
        (true, None) => format!("libpq does not know the parameter {name}"),
        (false, _) => format!(
            "libpq does not know the name of parameter {}, which may be a part of a password; \
             quote a value with a space, as password='two words'; in a URI, write & as %26, ? as %3F and @ as %40",
            place + 1
        ),
    }
}

#[cfg(test)]
mod tests;
