//! A server, its network and three processes with clocks of their own, in virtual time: whatever
//! breaks and whenever, no two of the processes are ever in a term at once, and once everything is
//! whole again, somebody is.
//!
//! Strict elections take whatever comes. Others are spared two things, as the docs say: a connection
//! that breaks while its leader cannot see it, and a candidate that starts while a leader has lost its
//! session and cannot see that.

mod events;
mod world;

use proptest::prelude::*;

use events::scene;
use world::{LEASE, STEP, World};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_two_terms_at_once_and_somebody_leads_in_the_end(
        strict: bool,
        events in proptest::collection::vec(scene(), 1..20),
        speeds in proptest::array::uniform3(970..=1_030_u64),
    ) {
        let mut world = World::new(strict, speeds);
        for (steps, event) in events.iter().flatten() {
            for _ in 0..*steps {
                world.step();
                let leaders = world.leaders();
                prop_assert!(leaders.len() <= 1, "{leaders:?} at {}", world.now);
            }
            world.happen(*event);
        }
        world.heal();
        // Time for a session whose client was lost, two leases of doubt, and the questions between.
        let patience = 5 * LEASE / STEP;
        let elected = (0..patience).any(|_| {
            world.step();
            !world.leaders().is_empty()
        });
        prop_assert!(elected, "nobody leads");
    }
}
