//! A server, its network and four processes with clocks of their own, in virtual time: whatever breaks and
//! whenever, no two of the processes are ever in a term at once, and once everything is whole again,
//! somebody is.

mod actor;
mod chance;
mod faults;
mod server;
mod world;

use actor::{Today, Without};
use world::{Actor, Features, STEP, World};

/// How many scenes the rule must hold in, unless this variable says otherwise: 100,000 take some minutes, or
/// half a minute with `--release`.
const SCENES: (&str, u64) = ("PGLOCK_MODEL_SCENES", 400);

const EVERYTHING: Features = Features {
    pools: true,
    reads: true,
    pooler: true,
    mixed: true,
    at_once: true,
};

/// Ten seconds in which things break, and then somebody must lead.
fn scene<A: Actor>(
    seed: u64,
    rule: A::Rule,
    features: Features,
    change: impl FnOnce(&mut World<A>),
) -> Result<u64, String> {
    let mut world = World::<A>::new(seed, rule, features);
    change(&mut world);
    let told = |text| format!("seed {seed}, {features:?}: {text}");
    for _ in 0..10_000 / STEP {
        world.step(true).map_err(told)?;
        if world.excused {
            return Ok(world.terms);
        }
    }
    world.settle(20_000).map_err(told)?;
    Ok(world.terms)
}

/// Of the features, those that the seed has in its bits.
fn some(features: Features, seed: u64) -> Features {
    Features {
        pools: features.pools && seed & 1 > 0,
        reads: features.reads && seed & 2 > 0,
        pooler: features.pooler && seed & 4 > 0,
        mixed: features.mixed && seed & 8 > 0,
        at_once: features.at_once && seed & 16 > 0,
    }
}

#[test]
fn no_two_terms_at_once_and_somebody_leads_in_the_end() {
    let scenes = std::env::var(SCENES.0).map(|count| count.parse().unwrap());
    let mut terms = 0;
    for seed in 0..scenes.unwrap_or(SCENES.1) {
        let features = some(EVERYTHING, seed);
        terms += scene::<Today>(seed, Without::Nothing, features, |_| ()).unwrap();
    }
    println!("{terms} terms");
}

/// Each part of the rule is needed: without it two terms are on at once, within so many scenes.
fn fails(without: Without, scenes: u64, features: Features) {
    let fails = |seed| {
        let head_for_all = without == Without::Head;
        let two = scene::<Today>(seed, without, features, |world| {
            world.server.head_for_all = head_for_all;
        });
        two.err().filter(|text| text.contains("two terms"))
    };
    let first = (0..scenes).find_map(fails);
    println!("{}", first.expect("a scene in which two lead"));
}

#[test]
fn the_rule_fails_if_there_are_two_heads() {
    fails(Without::Head, 1_000, Features::default());
    fails(Without::Head, 1_000, EVERYTHING);
}

#[test]
fn the_rule_fails_if_whoever_leaves_may_give_a_sign() {
    fails(Without::Condition, 1_000, Features::default());
    fails(Without::Condition, 1_000, EVERYTHING);
}

#[test]
fn the_rule_fails_if_the_silence_is_not_the_longest_that_is_known() {
    fails(Without::Longest, 2_000, EVERYTHING);
}

#[test]
fn the_rule_fails_without_the_silence() {
    fails(Without::Silence, 100, Features::default());
}
