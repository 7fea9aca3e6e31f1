//! `vmint guard-leases`: what the service starts to outlive it.

use std::path::Path;

use crate::cli::error::CliError;

/// It blocks, which nobody minds: there is nothing else in this process.
pub(in crate::cli) fn run(run_dir: &Path, hypervisor_uids: [u32; 2]) -> Result<u8, CliError> {
    vmint_factory::guard_leases(run_dir, hypervisor_uids)?;
    Ok(0)
}
