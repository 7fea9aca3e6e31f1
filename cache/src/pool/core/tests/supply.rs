//! Whom a healthy pool serves, and what it makes and ends.

use std::time::Duration;

use super::world::{LIMITS, Truth, World};
use crate::pool::core::{CloneKey, EndReason, Event, Limits, Refusal, Ticket};
use crate::request::OnEmpty;
use crate::view::Source;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_pool_without_a_generation_makes_nothing() {
    let mut world = World::new(LIMITS);
    world.checkout(OnEmpty::Clone);
    assert!(world.clones.is_empty());
    world.publish();
    assert_eq!(
        world.launching().len(),
        3,
        "two to refill, and one for the checkout that wants its own"
    );
}

#[test]
fn a_refill_is_so_many_at_a_time_and_stops_at_the_target() {
    let mut world = World::new(Limits {
        target: 5,
        refill: 2,
        ..LIMITS
    });
    world.publish();
    assert_eq!(world.launching().len(), 2);
    world.launch_succeeds(CloneKey(0));
    assert_eq!(world.launching().len(), 2);
    assert!(!world.core.was_filled());
    world.settle();
    assert_eq!(world.ready().len(), 5);
    assert!(world.core.was_filled());
}

#[test]
fn a_checkout_takes_a_ready_clone_and_starts_the_refill() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    assert_eq!(world.served(), [(0, Source::Pool)]);
    assert_eq!(
        (world.launching().len(), world.core.hits_and_misses()),
        (1, (1, 0))
    );
}

#[test]
fn twenty_checkouts_with_two_ready_are_served_in_order_and_within_max() {
    let mut world = World::filled(Limits {
        max: 16,
        queue: 32,
        ..LIMITS
    });
    for _ in 0..20 {
        world.checkout(OnEmpty::Wait);
    }
    assert_eq!(world.core.hits_and_misses(), (2, 18));
    assert_eq!(
        world.launching().len(),
        2,
        "the refill's bound holds for those who only wait"
    );
    world.settle();
    assert_eq!(
        world.served(),
        (0..16).map(|nth| (nth, Source::Pool)).collect::<Vec<_>>()
    );
    world.pass(10 * SECOND);
    assert_eq!(
        world.refused,
        (16..20)
            .map(|nth| (Ticket(nth), Refusal::Empty))
            .collect::<Vec<_>>()
    );
    assert_eq!(world.core.tally().alive(), 16);
}

#[test]
fn those_who_want_a_clone_get_one_made_at_once_each() {
    let mut world = World::new(Limits {
        target: 0,
        refill: 1,
        ..LIMITS
    });
    world.publish();
    for _ in 0..4 {
        world.checkout(OnEmpty::Clone);
    }
    assert_eq!(world.launching().len(), 4);
    world.settle();
    assert_eq!(
        world.served(),
        (0..4).map(|nth| (nth, Source::Clone)).collect::<Vec<_>>()
    );
}

#[test]
fn a_pool_that_keeps_none_still_serves_those_who_wait() {
    let mut world = World::new(Limits {
        target: 0,
        ..LIMITS
    });
    world.publish();
    world.checkout(OnEmpty::Wait);
    world.settle();
    assert_eq!(world.served(), [(0, Source::Clone)]);
    assert_eq!(world.core.hits_and_misses(), (0, 1));
}

#[test]
fn fail_fails_at_once_and_so_does_no_time_to_wait() {
    let mut world = World::new(LIMITS);
    world.publish();
    world.checkout(OnEmpty::Fail);
    world.checkout_for(OnEmpty::Wait, Duration::ZERO, None);
    assert_eq!(
        world.refused,
        [(Ticket(0), Refusal::Empty), (Ticket(1), Refusal::Empty)]
    );
}

#[test]
fn a_full_queue_refuses() {
    let mut world = World::new(Limits { queue: 2, ..LIMITS });
    for _ in 0..3 {
        world.checkout(OnEmpty::Wait);
    }
    assert_eq!(world.refused, [(Ticket(2), Refusal::QueueFull)]);
}

#[test]
fn one_who_hung_up_is_passed_over_and_its_clone_kept_only_if_wanted() {
    let mut world = World::new(Limits {
        target: 0,
        ..LIMITS
    });
    world.publish();
    let ticket = world.checkout(OnEmpty::Clone);
    world.waiting.remove(&ticket);
    world.on(Event::HungUp { ticket });
    world.settle();
    assert!(world.granted.is_empty());
    assert_eq!(world.ends.get(&CloneKey(0)), Some(&EndReason::Surplus));
}

#[test]
fn a_returned_clone_serves_the_next_in_turn() {
    let mut world = World::filled(Limits {
        target: 1,
        max: 1,
        ..LIMITS
    });
    world.checkout(OnEmpty::Wait);
    world.checkout(OnEmpty::Wait);
    let clone = world.leased()[0];
    world.clones.insert(clone, Truth::Proved);
    world.on(Event::Returned { clone });
    assert_eq!(world.served(), [(0, Source::Pool), (1, Source::Pool)]);
}

#[test]
fn a_second_try_goes_before_all_others_and_is_not_counted() {
    let mut world = World::new(LIMITS);
    let first = world.checkout(OnEmpty::Wait);
    let terms = crate::pool::core::Terms {
        on_empty: OnEmpty::Wait,
        deadline: crate::pool::core::Moment::new(SECOND),
        ttl: None,
        again: true,
    };
    let again = Ticket(100);
    world.waiting = [(again, SECOND)].into();
    world.on(Event::Checkout {
        ticket: again,
        terms,
    });
    world.publish();
    world.launch_succeeds(CloneKey(0));
    assert_eq!(world.granted[0].0, again);
    assert_eq!(
        world.core.hits_and_misses(),
        (0, 1),
        "{first:?} alone is counted"
    );
}

#[test]
fn a_lease_ends_by_itself_unless_it_is_renewed() {
    let mut world = World::filled(LIMITS);
    for _ in 0..2 {
        world.checkout_for(OnEmpty::Wait, SECOND, Some(10 * SECOND));
    }
    let [kept, lost] = world.leased()[..] else {
        panic!("two are leased")
    };
    world.pass(9 * SECOND);
    world.on(Event::Renewed {
        clone: kept,
        ttl: Some(60 * SECOND),
    });
    world.pass(2 * SECOND);
    assert_eq!(world.ends, [(lost, EndReason::Expired)].into());
    world.on(Event::Renewed {
        clone: kept,
        ttl: None,
    });
    world.pass(3_600 * SECOND);
    assert_eq!(world.leased(), [kept]);
}

#[test]
fn old_clones_are_replaced_before_they_end_and_not_all_at_once() {
    let mut world = World::filled(Limits {
        max_age: Some(100 * SECOND),
        target: 4,
        refill: 8,
        ..LIMITS
    });
    world.pass(79 * SECOND);
    assert!(
        world.launching().is_empty(),
        "nothing is replaced long before its time"
    );
    let mut at_once = 0;
    for _ in 0..30 {
        world.pass(SECOND);
        at_once = at_once.max(world.launching().len());
        assert_eq!(
            world.ready().len(),
            4,
            "the old one stays until the new one is ready"
        );
        world.settle();
    }
    assert!(world.ends.values().all(|why| *why == EndReason::TooOld));
    assert!(
        world.ends.len() >= 4 && at_once < 4,
        "{at_once} of {} at the same time",
        world.ends.len()
    );
}

#[test]
fn a_new_generation_replaces_unused_clones_and_spares_leased_ones() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    world.settle();
    let old = world.ready();
    world.publish();
    assert_eq!(
        world.ready(),
        old,
        "they serve until their replacements are ready"
    );
    world.settle();
    assert!(
        old.iter()
            .all(|clone| world.ends.get(clone) == Some(&EndReason::OldGeneration))
    );
    assert_eq!((world.ready().len(), world.leased().len()), (2, 1));
}

#[test]
fn a_new_generation_is_used_even_where_max_leaves_no_room_for_it() {
    let mut world = World::filled(Limits {
        target: 3,
        max: 3,
        ..LIMITS
    });
    let epoch = world.publish();
    assert_eq!(
        world.ready().len(),
        2,
        "one made room, the others still serve"
    );
    world.settle();
    assert_eq!(world.ready().len(), 3);
    assert!(
        world
            .ready()
            .iter()
            .all(|clone| world.epochs[clone] == epoch)
    );
}

#[test]
fn a_clone_of_an_older_generation_that_was_being_made_still_serves() {
    let mut world = World::new(Limits {
        target: 0,
        ..LIMITS
    });
    world.publish();
    world.checkout(OnEmpty::Clone);
    world.publish();
    assert_eq!(world.launching().len(), 1, "the one under way is enough");
    world.settle();
    assert_eq!(world.served(), [(0, Source::Clone)]);
}

#[test]
fn resizing_makes_or_ends_unused_clones_only() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    world.on(Event::Resized { target: 4, max: 6 });
    world.settle();
    assert_eq!((world.ready().len(), world.leased().len()), (4, 1));
    world.on(Event::Resized { target: 1, max: 1 });
    world.settle();
    assert_eq!(
        (world.ready().len(), world.leased().len()),
        (0, 1),
        "max counts the leased one"
    );
    world.on(Event::Resized { target: 0, max: 0 });
    world.settle();
    assert_eq!(world.leased().len(), 1);
}

#[test]
fn a_closed_pool_refuses_and_makes_nothing_and_a_stopped_one_ends_everything() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    let under_way = world.launching();
    world.on(Event::Closed);
    world.checkout(OnEmpty::Wait);
    assert_eq!(world.refused, [(Ticket(1), Refusal::Closed)]);
    assert_eq!(world.launching(), under_way);
    world.on(Event::Stopped {
        leave_leased: false,
    });
    assert!(world.launching().is_empty() && !world.core.is_finished());
    world.settle();
    assert!(world.core.is_finished());
}

#[test]
fn those_who_wait_are_refused_when_the_pool_closes() {
    let mut world = World::new(LIMITS);
    world.checkout(OnEmpty::Wait);
    world.on(Event::Closed);
    assert_eq!(world.refused, [(Ticket(0), Refusal::Closed)]);
}
