//! Durations in JSON: milliseconds, to the microsecond.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds of a start are few enough for an exact `f64`.
    #[allow(clippy::cast_precision_loss)]
    serializer.serialize_f64(value.as_micros() as f64 / 1e3)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    // Whole microseconds were written: what is read is not a nanosecond off.
    let us = (f64::deserialize(deserializer)? * 1e3).round();
    Duration::try_from_secs_f64(us / 1e6).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phases;

    #[test]
    fn durations_are_written_in_milliseconds_and_read_back() -> serde_json::Result<()> {
        let phases = Phases {
            spawn: Duration::from_micros(4745),
            ..Phases::default()
        };
        let json = serde_json::to_value(phases)?;
        assert_eq!(json["spawn"], 4.745);
        assert_eq!(serde_json::from_value::<Phases>(json)?, phases);
        Ok(())
    }

    #[test]
    fn a_negative_duration_is_refused() {
        assert!(serde_json::from_str::<Phases>(r#"{"spawn": -1}"#).is_err());
    }
}
