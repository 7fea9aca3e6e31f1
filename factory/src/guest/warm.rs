//! Going the ways that a clone's user will go first, once, before there is one.
//!
//! A clone begins with nothing translated (under emulation) and nothing mapped: whatever runs first in it takes ten
//! times as long as the second time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::agent::Agent;
use super::{BindError, Binding, ExecError, ExecRequest, GuestError, Identity};

/// How long the guest may take for something that does nothing.
const DEADLINE: Duration = Duration::from_secs(20);

impl Agent {
    /// Binds nothing new to a guest with this host name, and runs a command that does nothing.
    ///
    /// # Errors
    /// When the guest does not answer. What it answers does not matter: a guest without `true` is as warm as it gets.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn warm(&self, hostname: &str) -> Result<(), GuestError> {
        let binding = Binding {
            hostname: Some(hostname.to_owned()),
            ..Binding::default()
        };
        let identity = Identity::new(hostname.to_owned());
        if let Err(BindError::Guest(error)) = self.bind(&identity, &binding).await {
            return Err(error);
        }
        // The way of variables, too: those of a binding are read as these are.
        let env = BTreeMap::from([("VMINT".to_owned(), String::new())]);
        let nothing = ExecRequest {
            env,
            ..ExecRequest::new(vec!["true".to_owned()], DEADLINE)
        };
        match self.exec(nothing).await {
            Err(ExecError::Guest(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
