//! What the members reported, and the result.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use comfy_table::Table;
use postgres::Client;

pub struct Tally {
    members: Vec<Said>,
    /// By token, which grows with every term.
    terms: BTreeMap<i64, Term>,
}

#[derive(Default)]
struct Said {
    last: String,
    on: Option<Instant>,
    terms: u32,
    wrote: u32,
    refused: u32,
}

/// A term by its leader's own clock, in nanoseconds.
struct Term {
    member: usize,
    from: u128,
    to: u128,
    /// The number of rows that earlier leaders had written when it began.
    older: i64,
}

impl Tally {
    pub fn new(members: usize) -> Self {
        Self {
            members: (0..members).map(|_| Said::default()).collect(),
            terms: BTreeMap::new(),
        }
    }

    pub fn hear(&mut self, number: usize, line: &str) {
        let member = &mut self.members[number];
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["leads", token, older] => {
                member.terms += 1;
                member.last = format!("leads, token {token}");
                if let (Ok(token), Ok(older)) = (token.parse(), older.parse()) {
                    let (from, to) = (u128::MAX, 0);
                    self.terms.insert(
                        token,
                        Term {
                            member: number,
                            from,
                            to,
                            older,
                        },
                    );
                }
            }
            ["on", token, at] => {
                member.on = Some(Instant::now());
                let term = token
                    .parse()
                    .ok()
                    .and_then(|token: i64| self.terms.get_mut(&token));
                if let (Some(term), Ok(at)) = (term, at.parse()) {
                    term.from = term.from.min(at);
                    term.to = term.to.max(at);
                }
            }
            ["wrote"] => member.wrote += 1,
            ["refused"] => member.refused += 1,
            _ => {
                member.on = None;
                line.clone_into(&mut member.last);
            }
        }
    }

    /// Who leads, according to the last reports; another than the last leader.
    pub fn leader(&self, recent: Duration, last: Option<usize>) -> Option<usize> {
        let leads = |member: &Said| member.on.is_some_and(|on| on.elapsed() < recent);
        let others = (0..self.members.len()).filter(|number| Some(*number) != last);
        others
            .into_iter()
            .find(|number| leads(&self.members[*number]))
    }

    pub fn table(&self, recent: Duration) -> Table {
        let mut table = Table::new();
        table.set_header(["member", "leads", "terms", "writes", "refused", "last word"]);
        for (number, member) in self.members.iter().enumerate() {
            let leads = member.on.is_some_and(|on| on.elapsed() < recent);
            let last: String = member.last.chars().take(40).collect();
            table.add_row([
                number.to_string(),
                if leads { "yes".into() } else { String::new() },
                member.terms.to_string(),
                member.wrote.to_string(),
                member.refused.to_string(),
                format!("{last:40}"),
            ]);
        }
        table
    }

    /// Fails if an earlier term wrote in a later one, or if two led at once and may not.
    pub fn print(&self, client: &mut Client, at_once: bool) -> anyhow::Result<()> {
        let terms: Vec<_> = self.terms.iter().collect();
        let overlaps = terms
            .windows(2)
            .filter(|pair| pair[1].1.from < pair[0].1.to)
            .count();
        let mut late = 0;
        let mut table = Table::new();
        table.set_header(["token", "member", "led for", "then nobody for", "rows"]);
        for (i, (token, term)) in terms.iter().enumerate() {
            let count = |condition: &str, client: &mut Client| -> anyhow::Result<i64> {
                let query = format!("SELECT count(*) FROM leader_wrote WHERE token {condition} $1");
                Ok(client.query_one(&query, &[token])?.get(0))
            };
            late += count("<", client)? - term.older;
            let next = terms
                .get(i + 1)
                .map(|(_, next)| seconds(next.from, term.to));
            table.add_row([
                token.to_string(),
                term.member.to_string(),
                seconds(term.to, term.from),
                next.unwrap_or_default(),
                count("=", client)?.to_string(),
            ]);
        }
        let sum = |count: fn(&Said) -> u32| self.members.iter().map(count).sum::<u32>();
        println!("{table}");
        println!(
            "terms {}, writes {}, refused {}, overlaps {overlaps}, writes of an earlier term in a later one {late}",
            terms.len(),
            sum(|member| member.wrote),
            sum(|member| member.refused)
        );
        ensure!(late == 0 && (overlaps == 0 || at_once), "two led at once");
        Ok(())
    }
}

fn seconds(late: u128, early: u128) -> String {
    let nanos = late.saturating_sub(early);
    format!(
        "{:.3} s",
        Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX)).as_secs_f64()
    )
}
