//! The proof that a generation works: canary clones.

use std::sync::Arc;

use super::BuildError;
use super::build::COMMAND_DEADLINE;
use super::error::failure;
use super::generation::Generation;
use super::manifest::{CanaryReport, VerifyReport};
use crate::VmId;
use crate::aside::aside;
use crate::clone::{CloneOrder, Guest, Vm, mint_canary};
use crate::guest::ExecRequest;
use crate::host::Host;

/// Two show what one cannot: that clones differ from each other.
const CANARIES: usize = 2;

/// Mints canaries from a generation that is not published yet, compares them, runs the template's own verification
/// commands in them, and looks whether the memory file is still the same.
pub(super) async fn verify(
    host: &Arc<Host>,
    generation: &Arc<Generation>,
) -> Result<VerifyReport, BuildError> {
    let mut canaries = Vec::with_capacity(CANARIES);
    for number in 1..=CANARIES {
        let order = CloneOrder {
            id: VmId::random(),
            hostname: format!("canary-{number}"),
            on_clone: Vec::new(),
            warm: false,
            paused: false,
        };
        let minted = mint_canary(host, generation, order).await;
        let (vm, proof) = minted.map_err(|source| BuildError::Canary {
            number,
            source: Box::new(source),
        })?;
        let report = CanaryReport {
            random: proof.random,
            uuid: proof.uuid,
            machine_id: proof.machine_id,
            reseeded: proof.vmgenid_reseed,
            phases: vm.phases(),
        };
        canaries.push((vm, report));
    }
    let (vms, reports): (Vec<_>, Vec<_>) = canaries.into_iter().unzip();
    refuse_twins(&reports)?;
    for vm in &vms {
        run_verify_commands(vm, generation).await?;
    }
    for vm in vms {
        vm.end().await;
    }
    refuse_changed_memory(host, generation).await?;
    Ok(VerifyReport {
        canaries: reports,
        memory_unchanged: true,
    })
}

fn refuse_twins(reports: &[CanaryReport]) -> Result<(), BuildError> {
    for (index, one) in reports.iter().enumerate() {
        for other in &reports[index + 1..] {
            let compared = [
                (one.random == other.random, "random numbers"),
                (one.uuid == other.uuid, "UUID"),
                (one.machine_id == other.machine_id, "machine id"),
            ];
            if let Some(&(_, what)) = compared.iter().find(|(same, _)| *same) {
                return Err(BuildError::NotUnique { what });
            }
        }
    }
    Ok(())
}

async fn run_verify_commands(vm: &Vm, generation: &Generation) -> Result<(), BuildError> {
    for argv in &generation.spec().verify {
        let outcome = vm
            .exec(ExecRequest::new(argv.clone(), COMMAND_DEADLINE))
            .await;
        if let Some(reason) = failure(outcome) {
            return Err(BuildError::Verify {
                argv: argv.clone(),
                reason,
            });
        }
    }
    Ok(())
}

async fn refuse_changed_memory(host: &Host, generation: &Generation) -> Result<(), BuildError> {
    let path = generation.memory();
    let (read, digests) = (path.clone(), Arc::clone(&host.digests));
    let digest = aside(move || digests.read(&read)).await;
    let digest = digest.map_err(|source| BuildError::File {
        action: "read",
        path,
        source,
    })?;
    if digest == generation.manifest().files.memory.digest {
        Ok(())
    } else {
        Err(BuildError::MemoryChanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phases;

    fn report(random: &str, uuid: &str, machine_id: &str) -> CanaryReport {
        CanaryReport {
            random: random.into(),
            uuid: uuid.into(),
            machine_id: machine_id.into(),
            reseeded: true,
            phases: Phases::default(),
        }
    }

    #[test]
    fn twins_are_refused_by_what_they_share() {
        let one = report("a", "b", "c");
        assert!(refuse_twins(&[one.clone(), report("x", "y", "z")]).is_ok());
        for (twin, what) in [
            (report("a", "y", "z"), "random numbers"),
            (report("x", "b", "z"), "UUID"),
            (report("x", "y", "c"), "machine id"),
        ] {
            let refusal = refuse_twins(&[one.clone(), twin]);
            assert!(matches!(refusal, Err(BuildError::NotUnique { what: got }) if got == what));
        }
    }
}
