//! Environment variables, wherever a request names them. Values are secret: no message has one, or a name that may be one
//! which lost its `=`.

use std::collections::BTreeMap;

use crate::http::bounded::Strings;
use crate::http::limits::{
    ENV_MAX_BYTES, ENV_MAX_ENTRIES, EXEC_ENV_MAX_BYTES, EXEC_ENV_MAX_ENTRIES,
};
use crate::http::problem::Problem;

/// The variables of a sandbox, as they came.
pub(super) type SandboxEnv = Strings<ENV_MAX_ENTRIES>;
/// The variables of one command, as they came.
pub(super) type ExecEnv = Strings<EXEC_ENV_MAX_ENTRIES>;

/// The variables of a sandbox, or what is wrong with them.
pub(super) fn check_sandbox_env(env: SandboxEnv) -> Result<BTreeMap<String, String>, Problem> {
    check(env, ENV_MAX_BYTES)
}

/// The variables of one command, or what is wrong with them.
pub(super) fn check_exec_env(env: ExecEnv) -> Result<BTreeMap<String, String>, Problem> {
    check(env, EXEC_ENV_MAX_BYTES)
}

fn check<const MAX: usize>(
    env: Strings<MAX>,
    max_bytes: usize,
) -> Result<BTreeMap<String, String>, Problem> {
    let too_large = || {
        Problem::not_possible(format!(
            "env is above the limit of {MAX} variables and {max_bytes} bytes"
        ))
    };
    let env = env.within().ok_or_else(too_large)?;
    let bytes: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > max_bytes {
        return Err(too_large());
    }
    check_names_and_values(&env)?;
    Ok(env)
}

/// What the guest's kernel can tell apart again.
fn check_names_and_values(env: &BTreeMap<String, String>) -> Result<(), Problem> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Problem::invalid(
                "env: a name must not be empty, nor have '=' or a zero byte in it",
            ));
        }
        if value.contains('\0') {
            return Err(Problem::invalid(format!(
                "env: the value of {name:?} must not have a zero byte in it"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::code::Code;

    /// The same, checked as a sandbox's and as a command's.
    fn both(env: &Value) -> [Result<BTreeMap<String, String>, Problem>; 2] {
        let sandbox = SandboxEnv::deserialize(env).expect("an object of strings");
        let exec = ExecEnv::deserialize(env).expect("an object of strings");
        [check_sandbox_env(sandbox), check_exec_env(exec)]
    }

    use serde::Deserialize as _;

    #[test]
    fn variables_have_limits() {
        let variables = |count: usize| -> Value {
            (0..count).map(|nth| (nth.to_string(), json!(""))).collect()
        };
        let codes = |env: &Value| both(env).map(|it| it.err().map(|problem| problem.code()));
        let no = Some(Code::NotPossible);
        assert_eq!(codes(&variables(ENV_MAX_ENTRIES)), [None, None]);
        assert_eq!(codes(&variables(ENV_MAX_ENTRIES + 1)), [no, None]);
        assert_eq!(codes(&variables(EXEC_ENV_MAX_ENTRIES + 1)), [no, no]);
        let large = |bytes: usize| json!({"A": "x".repeat(bytes)});
        assert_eq!(codes(&large(ENV_MAX_BYTES)), [no, None]);
        assert_eq!(codes(&large(EXEC_ENV_MAX_BYTES)), [no, no]);
    }

    #[test]
    fn a_sandbox_and_a_command_are_told_the_same_and_no_secret() {
        for bad in [
            json!({"": "secret"}),
            json!({"A=secret": "x"}),
            json!({"A": "secret\u{0}"}),
        ] {
            let [sandbox, exec] = both(&bad).map(|it| it.expect_err("it is refused"));
            assert_eq!(sandbox.code(), Code::InvalidRequest);
            assert_eq!(sandbox.detail(), exec.detail());
            assert!(!sandbox.detail().contains("secret"), "{}", sandbox.detail());
        }
    }
}
