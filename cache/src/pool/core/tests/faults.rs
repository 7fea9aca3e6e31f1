//! What a pool does when clones fail, die or fall silent, and when their generation is damaged.

use std::time::Duration;

use super::world::{LIMITS, World};
use crate::pool::core::{EndReason, Event};
use crate::request::OnEmpty;

const SECOND: Duration = Duration::from_secs(1);

/// Lets every launch fail, and waits for the next, so often.
fn fail_often(world: &mut World, times: usize) {
    for _ in 0..times {
        while world.launching().is_empty() {
            world.pass(SECOND);
        }
        let clone = world.launching()[0];
        world.launch_fails(clone, false);
    }
}

#[test]
fn a_failure_pauses_launches_and_then_one_at_a_time_is_tried() {
    let mut world = World::new(LIMITS);
    world.publish();
    fail_often(&mut world, 2);
    assert!(world.launching().is_empty());
    world.pass(SECOND);
    assert_eq!(world.launching().len(), 1);
    world.settle();
    assert_eq!(world.ready().len(), 2);
    assert!(
        world.notes.is_empty(),
        "two failures are no reason to worry anybody"
    );
}

#[test]
fn three_failures_degrade_and_one_success_recovers() {
    let mut world = World::new(LIMITS);
    world.publish();
    fail_often(&mut world, 4);
    assert_eq!(
        world.notes,
        ["degraded: 3 clones failed in a row, the last in phase load: no"]
    );
    assert_eq!(
        world.core.degraded(),
        Some("4 clones failed in a row, the last in phase load: no")
    );
    world.pass(2 * SECOND);
    world.settle();
    assert_eq!(world.notes[1..], ["recovered"]);
    assert_eq!((world.core.degraded(), world.ready().len()), (None, 2));
}

#[test]
fn a_degraded_pool_recovers_even_when_it_needs_no_clone() {
    let mut world = World::new(LIMITS);
    world.publish();
    fail_often(&mut world, 3);
    world.on(Event::Resized { target: 0, max: 6 });
    world.pass(2 * SECOND);
    world.settle();
    assert_eq!(
        (world.core.degraded(), world.core.tally().alive()),
        (None, 0)
    );
    assert!(world.ends.values().all(|why| *why == EndReason::Surplus));
}

#[test]
fn pauses_grow_but_not_beyond_their_cap() {
    let mut world = World::new(LIMITS);
    world.publish();
    fail_often(&mut world, 20);
    assert!(world.core.pause() >= 15 * SECOND && world.core.pause() <= 30 * SECOND);
    world.pass(30 * SECOND);
    assert_eq!(world.launching().len(), 1);
}

#[test]
fn a_degraded_pool_still_serves_what_is_ready() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    fail_often(&mut world, 3);
    assert!(world.core.degraded().is_some());
    world.checkout(OnEmpty::Wait);
    assert_eq!(world.granted.len(), 2);
}

#[test]
fn not_even_those_who_want_a_clone_hammer_a_failing_factory() {
    let mut world = World::new(LIMITS);
    world.publish();
    fail_often(&mut world, 3);
    for _ in 0..5 {
        world.checkout(OnEmpty::Clone);
    }
    assert!(world.launching().is_empty());
    world.pass(SECOND);
    assert_eq!(world.launching().len(), 1);
}

#[test]
fn damage_degrades_at_once_has_the_template_rebuilt_once_and_stops_launches() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    world.checkout(OnEmpty::Wait);
    let [one, two] = world.launching()[..] else {
        panic!("two are under way")
    };
    world.launch_fails(one, true);
    world.launch_fails(two, true);
    assert_eq!(world.notes.len(), 2, "{:?}", world.notes);
    assert_eq!(world.notes[0], "rebuild 0");
    assert!(
        world.notes[1].contains("damaged, found in phase load"),
        "{}",
        world.notes[1]
    );
    world.pass(3_600 * SECOND);
    assert!(world.launching().is_empty());
    world.publish();
    world.settle();
    assert_eq!((world.ready().len(), world.core.degraded()), (2, None));
    assert_eq!(world.notes[2..], ["rolls 0 1", "recovered", "rolled 1"]);
}

#[test]
fn a_failure_of_an_older_generation_says_nothing_of_the_new_one() {
    let mut world = World::new(LIMITS);
    world.publish();
    let old = world.launching();
    world.publish();
    for clone in old {
        world.launch_fails(clone, true);
    }
    assert_eq!(world.core.degraded(), None);
    assert_eq!(world.notes, ["rolls 0 1"]);
    world.settle();
    assert_eq!(world.ready().len(), 2);
}

#[test]
fn a_ready_clone_that_died_is_replaced_and_never_granted() {
    let mut world = World::filled(LIMITS);
    let dead = world.ready()[0];
    world.dies(dead);
    assert_eq!(
        world.launching().len(),
        1,
        "at once, not when its remains are gone"
    );
    world.checkout(OnEmpty::Wait);
    world.checkout(OnEmpty::Wait);
    world.settle();
    assert!(world.granted.iter().all(|(_, clone, _)| *clone != dead));
}

#[test]
fn a_leased_clone_that_died_ends_its_lease() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    let clone = world.leased()[0];
    world.dies(clone);
    assert_eq!(world.ends.get(&clone), Some(&EndReason::Died));
    world.settle();
    assert!(world.core.clone_state(clone).is_none());
}

#[test]
fn a_clone_that_spoiled_in_a_checkout_is_never_granted_again() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    let clone = world.leased()[0];
    world.on(Event::Spoiled { clone });
    world.settle();
    assert_eq!(world.ends, [(clone, EndReason::Spoiled)].into());
    assert_eq!(world.ready().len(), 2);
}
