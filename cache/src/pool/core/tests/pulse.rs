//! Guests that are asked in turn, and what their silence means.

use std::time::Duration;

use super::world::{LIMITS, World};
use crate::pool::core::{CloneKey, Effect, EndReason, Event, Limits, Moment, SHORTEST_PACE};
use crate::request::OnEmpty;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(60);
const ASKED: Limits = Limits {
    asks_ready: true,
    guest_timeout: Some(TIMEOUT),
    ..LIMITS
};

/// Lets so much time pass, and lets nobody answer. Returns who was asked.
fn silence(world: &mut World, time: Duration) -> Vec<CloneKey> {
    let (end, mut asked) = (world.now + time, Vec::new());
    while let Some(wake) = world.core.next_wake().map(Moment::since_start)
        && wake <= end
    {
        world.now = world.now.max(wake);
        for effect in world.on(Event::Tick) {
            if let Effect::Ping { clone } = effect {
                asked.push(clone);
            }
        }
    }
    world.now = end;
    asked
}

fn answer_all(world: &mut World) {
    for clone in std::mem::take(&mut world.pings) {
        world.on(Event::Answered { clone });
    }
}

/// One sandbox whose guest has just been heard from.
fn leased(limits: Limits) -> (World, CloneKey) {
    let mut world = World::filled(limits);
    world.checkout(OnEmpty::Wait);
    world.settle();
    let clone = world.leased()[0];
    (world, clone)
}

#[test]
fn ready_guests_are_asked_in_turn_and_apart() {
    let mut world = World::filled(ASKED);
    let first = silence(&mut world, SHORTEST_PACE);
    assert_eq!(first.len(), 1, "the questions are spread over the pace");
    let second = silence(&mut world, SHORTEST_PACE / 2);
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
    assert!(
        silence(&mut world, 600 * SECOND).is_empty(),
        "no guest is asked again while it owes an answer"
    );
    answer_all(&mut world);
    world.pass(600 * SECOND);
    assert!(world.ends.is_empty(), "guests that answer are left alone");
}

#[test]
fn a_slower_pace_asks_less_often() {
    let mut world = World::filled(ASKED);
    world.core.set_pace(100 * SECOND);
    let mut asked = 0;
    for _ in 0..10 {
        asked += silence(&mut world, 100 * SECOND).len();
        answer_all(&mut world);
    }
    assert!(
        (10..=20).contains(&asked),
        "{asked} questions to two guests"
    );
}

#[test]
fn a_silent_guest_is_replaced() {
    let mut world = World::filled(ASKED);
    let silent = silence(&mut world, SHORTEST_PACE)[0];
    world.on(Event::Silent { clone: silent });
    assert_eq!(world.ends, [(silent, EndReason::Silent)].into());
    assert_eq!(world.launching().len(), 1);
}

#[test]
fn a_ready_clone_whose_hypervisor_is_stopped_is_replaced() {
    let mut world = World::filled(LIMITS);
    let stopped = world.ready()[0];
    world.on(Event::Stalled { clone: stopped });
    assert_eq!(world.ends, [(stopped, EndReason::Stalled)].into());
    assert_eq!(world.launching().len(), 1);
}

#[test]
fn the_guest_that_was_heard_from_last_is_granted_first() {
    let mut world = World::filled(ASKED);
    let ready = world.ready();
    world.now += SECOND;
    world.on(Event::Answered { clone: ready[1] });
    world.checkout(OnEmpty::Wait);
    assert_eq!(world.granted[0].1, ready[1], "though the other is older");
}

#[test]
fn of_clones_that_stand_still_the_oldest_is_granted_first() {
    let mut world = World::filled(LIMITS);
    let ready = world.ready();
    world.checkout(OnEmpty::Wait);
    assert_eq!(world.granted[0].1, ready[0]);
}

#[test]
fn a_leased_guest_is_unresponsive_after_one_timeout_and_ended_after_another() {
    let (mut world, clone) = leased(ASKED);
    silence(&mut world, TIMEOUT / 4);
    assert!(world.pings.contains(&clone), "it is asked in its turn");
    silence(&mut world, TIMEOUT - SECOND);
    assert!(world.unresponsive.is_empty() && world.ends.is_empty());
    silence(&mut world, 2 * SECOND);
    assert_eq!(world.unresponsive, [clone].into());
    assert_eq!(world.core.tally().unresponsive, 1);
    silence(&mut world, TIMEOUT - 2 * SECOND);
    assert!(world.ends.is_empty(), "it has a second timeout");
    silence(&mut world, 2 * SECOND);
    assert_eq!(world.ends, [(clone, EndReason::Unresponsive)].into());
    assert_eq!(world.core.tally().unresponsive, 0);
}

#[test]
fn an_unresponsive_guest_that_answers_is_left_alone() {
    let (mut world, clone) = leased(ASKED);
    silence(&mut world, TIMEOUT / 4 + TIMEOUT + SECOND);
    assert_eq!(world.unresponsive, [clone].into());
    world.pings.remove(&clone);
    let effects = world.on(Event::Answered { clone });
    assert!(effects.contains(&Effect::Responsive { clone }));
    assert_eq!(world.core.tally().unresponsive, 0);
    world.pass(10 * TIMEOUT);
    assert!(world.ends.is_empty());
}

#[test]
fn a_question_that_was_lost_is_asked_again() {
    let (mut world, clone) = leased(ASKED);
    silence(&mut world, TIMEOUT / 4);
    world.pings.remove(&clone);
    world.on(Event::Silent { clone });
    assert!(world.ends.is_empty(), "a leased guest has its time");
    assert_eq!(silence(&mut world, TIMEOUT / 4), [clone]);
    answer_all(&mut world);
    world.pass(10 * TIMEOUT);
    assert!(world.ends.is_empty() && world.unresponsive.is_empty());
}

#[test]
fn a_service_that_was_itself_stopped_hears_the_answers_before_it_ends_anything() {
    let (mut world, clone) = leased(ASKED);
    silence(&mut world, TIMEOUT / 4);
    world.now += 10 * TIMEOUT;
    world.on(Event::Tick);
    assert!(world.ends.is_empty(), "{:?}", world.ends);
    world.pings.remove(&clone);
    world.on(Event::Answered { clone });
    assert!(world.ends.is_empty() && world.unresponsive.is_empty());
}

#[test]
fn a_guest_whose_turn_comes_late_is_not_unresponsive_for_it() {
    let (mut world, _) = leased(ASKED);
    world.core.set_pace(100 * TIMEOUT);
    silence(&mut world, 10 * TIMEOUT);
    assert!(world.unresponsive.is_empty(), "it was never asked");
}

#[test]
fn without_a_timeout_no_sandbox_is_asked() {
    let limits = Limits {
        guest_timeout: None,
        ..ASKED
    };
    let (mut world, clone) = leased(limits);
    let asked = silence(&mut world, 3600 * SECOND);
    assert!(!asked.contains(&clone) && world.unresponsive.is_empty());
}

#[test]
fn settings_without_a_timeout_leave_no_sandbox_unresponsive() {
    let (mut world, clone) = leased(ASKED);
    silence(&mut world, TIMEOUT / 4 + TIMEOUT + SECOND);
    assert_eq!(world.unresponsive, [clone].into());
    let limits = Limits {
        guest_timeout: None,
        ..ASKED
    };
    let renew = false;
    let effects = world.on(Event::Reconfigured { limits, renew });
    assert!(effects.contains(&Effect::Responsive { clone }));
    assert_eq!(world.core.tally().unresponsive, 0);
    silence(&mut world, 10 * TIMEOUT);
    assert!(world.unresponsive.is_empty() && !world.ends.contains_key(&clone));
    // With a timeout again it has all of it, from the next question on.
    world.pings.remove(&clone);
    world.on(Event::Silent { clone });
    let limits = ASKED;
    world.on(Event::Reconfigured { limits, renew });
    silence(&mut world, TIMEOUT - SECOND);
    assert!(world.unresponsive.is_empty());
}

#[test]
fn an_adopted_guest_is_asked_first_of_all() {
    let mut world = World::new(ASKED);
    let epoch = world.publish();
    world.settle();
    let now = Moment::new(world.now);
    let adopted = world.core.adopt_leased(now, epoch, None);
    world.clones.insert(adopted, super::world::Truth::Dead);
    world.epochs.insert(adopted, epoch);
    let effects = world.on(Event::Tick);
    assert!(effects.contains(&Effect::Ping { clone: adopted }));
}

#[test]
fn a_guest_that_cannot_be_asked_owes_no_answer() {
    let mut world = World::filled(ASKED);
    let (now, epoch) = (Moment::new(world.now), world.epochs[&world.ready()[0]]);
    let mute = world.core.adopt_leased(now, epoch, None);
    let others = world.core.asked_in_turn();
    world.core.never_ask(mute);
    assert_eq!(world.core.asked_in_turn(), others - 1);
    world.clones.insert(mute, super::world::Truth::Dead);
    world.epochs.insert(mute, epoch);
    assert!(!silence(&mut world, 10 * TIMEOUT).contains(&mute));
    assert!(!world.unresponsive.contains(&mute));
}
