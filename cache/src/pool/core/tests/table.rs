//! Every state of a clone with every event that can name it: what it becomes, and what is done.

use std::time::Duration;

use vmint_factory::Phase;

use super::world::{LIMITS, World};
use crate::mint::Fault;
use crate::pool::core::{CloneKey, Drain, Effect, Event, Limits, State};
use crate::request::OnEmpty;

const SECOND: Duration = Duration::from_secs(1);
/// One clone and no refill: what happens to it is not mixed with what happens to others.
const ALONE: Limits = Limits {
    target: 1,
    max: 1,
    asks_ready: true,
    guest_timeout: Some(Duration::from_secs(60)),
    ..LIMITS
};
const IT: CloneKey = CloneKey(0);

/// A pool whose only clone is in the named state.
fn world_in(state: &str) -> World {
    let mut world = World::new(ALONE);
    world.publish();
    match state {
        "launching" => return world,
        "abandoned" => {
            world.on(Event::Stopped {
                leave_leased: false,
            });
            return world;
        }
        "gone" => {
            world.launch_fails(IT, false);
            return world;
        }
        _ => world.launch_succeeds(IT),
    }
    match state {
        "ready" => {}
        "asked" => {
            world.now += 15 * SECOND;
            world.on(Event::Tick);
        }
        "leased" => {
            world.checkout(OnEmpty::Wait);
        }
        "releasing" => {
            world.on(Event::Died { clone: IT });
        }
        other => panic!("no state {other}"),
    }
    world
}

fn event(name: &str) -> Event {
    let clone = IT;
    match name {
        "launched" => Event::Launched { clone },
        "failed" => Event::LaunchFailed {
            clone,
            phase: Phase::Load,
            fault: Fault::Clone,
            reason: "no".to_owned(),
        },
        "no room" => Event::NoRoom {
            clone,
            reason: "1 + 1 > 1".to_owned(),
        },
        "died" => Event::Died { clone },
        "answered" => Event::Answered { clone },
        "silent" => Event::Silent { clone },
        "stalled" => Event::Stalled { clone },
        "returned" => Event::Returned { clone },
        "spoiled" => Event::Spoiled { clone },
        "renewed" => Event::Renewed {
            clone,
            ttl: Some(SECOND),
        },
        "released" => Event::Released { clone },
        "ended" => Event::Ended { clone },
        "drain" => Event::Drain { whose: Drain::Pool },
        "discarded" => Event::Discarded,
        "withdrawn" => Event::Withdrawn,
        "stopped" => Event::Stopped {
            leave_leased: false,
        },
        "left" => Event::Stopped { leave_leased: true },
        other => panic!("no event {other}"),
    }
}

fn outcome(state: &str, name: &str) -> String {
    let mut world = world_in(state);
    let effects = world
        .core
        .on(crate::pool::core::Moment::new(world.now), event(name));
    let state = match world.core.clone_state(IT) {
        None => "gone",
        Some(State::Launching) => "launching",
        Some(State::Ready) => "ready",
        Some(State::Leased { .. }) => "leased",
        Some(State::Releasing) => "releasing",
    };
    let does = |wanted: fn(&Effect) -> bool| effects.iter().any(wanted);
    let end = if does(|effect| matches!(effect, Effect::End { clone: IT, .. })) {
        "+end"
    } else {
        ""
    };
    let abandon = if does(|effect| matches!(effect, Effect::Abandon { clone: IT })) {
        "+abandon"
    } else {
        ""
    };
    let leave = if does(|effect| matches!(effect, Effect::Leave { clone: IT })) {
        "+leave"
    } else {
        ""
    };
    format!("{state}{end}{abandon}{leave}")
}

#[test]
fn every_state_with_every_event() {
    let states = [
        "launching",
        "ready",
        "asked",
        "leased",
        "releasing",
        "abandoned",
        "gone",
    ];
    let table: [(&str, [&str; 7]); 17] = [
        // event      launching            ready            asked            leased           releasing        abandoned        gone
        (
            "launched",
            [
                "ready",
                "ready",
                "ready",
                "leased",
                "releasing+end",
                "releasing+end",
                "gone",
            ],
        ),
        (
            "failed",
            ["gone", "ready", "ready", "leased", "gone", "gone", "gone"],
        ),
        (
            "no room",
            ["gone", "ready", "ready", "leased", "gone", "gone", "gone"],
        ),
        (
            "died",
            [
                "launching",
                "releasing+end",
                "releasing+end",
                "releasing+end",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "answered",
            [
                "launching",
                "ready",
                "ready",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "silent",
            [
                "launching",
                "ready",
                "releasing+end",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "stalled",
            [
                "launching",
                "releasing+end",
                "releasing+end",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "returned",
            [
                "launching",
                "ready",
                "ready",
                "ready",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "spoiled",
            [
                "launching",
                "ready",
                "ready",
                "releasing+end",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "renewed",
            [
                "launching",
                "ready",
                "ready",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "released",
            [
                "launching",
                "ready",
                "ready",
                "releasing+end",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "ended",
            [
                "launching",
                "ready",
                "ready",
                "leased",
                "gone",
                "gone",
                "gone",
            ],
        ),
        (
            "discarded",
            [
                "launching",
                "releasing+end",
                "releasing+end",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "drain",
            [
                "releasing+abandon",
                "releasing+end",
                "releasing+end",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "withdrawn",
            [
                "releasing+abandon",
                "releasing+end",
                "releasing+end",
                "leased",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "stopped",
            [
                "releasing+abandon",
                "releasing+end",
                "releasing+end",
                "releasing+end",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
        (
            "left",
            [
                "releasing+abandon",
                "releasing+end",
                "releasing+end",
                "releasing+leave",
                "releasing",
                "releasing",
                "gone",
            ],
        ),
    ];
    for (name, expected) in table {
        for (state, expected) in states.iter().zip(expected) {
            assert_eq!(outcome(state, name), expected, "{state} with {name}");
        }
    }
}
