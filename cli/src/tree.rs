//! `pglock ls --tree`: who waits for whom.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

/// A session, as far as it matters for the tree.
pub(crate) struct Node {
    pub(crate) line: String,
    /// The sessions that it is shown below; none if it does not wait.
    pub(crate) below: Vec<i32>,
    /// In seconds. The longest wait comes first.
    pub(crate) waiting: f64,
}

/// A line per session. A session that waits for several is shown below each of them; what is below it,
/// only once.
pub(crate) fn draw(nodes: &BTreeMap<i32, Node>) -> String {
    let mut drawing = Drawing {
        nodes,
        waiters: waiters(nodes),
        drawn: HashSet::new(),
        text: String::new(),
    };
    for (pid, node) in nodes {
        if !node.below.iter().any(|blocker| nodes.contains_key(blocker)) {
            drawing.draw(*pid, "", "");
        }
    }
    for pid in nodes.keys() {
        // Sessions that wait for each other, and those that wait for them.
        if !drawing.drawn.contains(pid) {
            drawing.draw(*pid, "", "");
        }
    }
    drawing.text
}

fn waiters(nodes: &BTreeMap<i32, Node>) -> BTreeMap<i32, Vec<i32>> {
    let mut waiters = BTreeMap::<_, Vec<_>>::new();
    for (pid, node) in nodes {
        for blocker in &node.below {
            waiters.entry(*blocker).or_default().push(*pid);
        }
    }
    for list in waiters.values_mut() {
        list.sort_by(|a, b| nodes[b].waiting.total_cmp(&nodes[a].waiting));
    }
    waiters
}

struct Drawing<'n> {
    nodes: &'n BTreeMap<i32, Node>,
    waiters: BTreeMap<i32, Vec<i32>>,
    drawn: HashSet<i32>,
    text: String,
}

impl Drawing<'_> {
    /// `branch` stands before the line, `trunk` before those below it.
    fn draw(&mut self, pid: i32, branch: &str, trunk: &str) {
        let Some(node) = self.nodes.get(&pid) else {
            return;
        };
        let again = match self.drawn.insert(pid) {
            true => "",
            false => " (see above)",
        };
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let _ = write!(self.text, "{branch}{}{again}", node.line); // into a String
        let waiters = self.waiters.get(&pid).cloned().unwrap_or_default();
        if !again.is_empty() {
            return;
        }
        for (i, waiter) in waiters.iter().enumerate() {
            let (fork, rest) = match i + 1 == waiters.len() {
                true => ("└─ ", "   "),
                false => ("├─ ", "│  "),
            };
            self.draw(
                *waiter,
                &format!("{trunk}{fork}"),
                &format!("{trunk}{rest}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(nodes: &[(i32, &[i32], f64)]) -> String {
        let node = |(pid, below, waiting): &(i32, &[i32], f64)| {
            let node = Node {
                line: pid.to_string(),
                below: below.to_vec(),
                waiting: *waiting,
            };
            (*pid, node)
        };
        draw(&nodes.iter().map(node).collect())
    }

    #[test]
    fn who_came_first_stands_first() {
        let tree = drawn(&[
            (9, &[], 0.0),
            (1, &[9], 1.0),
            (2, &[9], 2.0),
            (3, &[2], 0.5),
        ]);
        assert_eq!(tree, "9\n├─ 2\n│  └─ 3\n└─ 1");
    }

    #[test]
    fn a_circle_is_drawn_once() {
        let tree = drawn(&[(1, &[2], 0.0), (2, &[1], 0.0), (3, &[2], 0.0)]);
        assert_eq!(tree, "1\n└─ 2\n   ├─ 1 (see above)\n   └─ 3");
    }

    #[test]
    fn a_blocker_that_is_gone_is_none() {
        assert_eq!(drawn(&[(1, &[7], 0.0)]), "1");
    }
}
