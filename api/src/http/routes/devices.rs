//! Devices of the host in a checkout's body: network interfaces and disks. Only over the Unix socket, where the kernel
//! says who asks: they are opened with the rights of that user.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{Caller, DeviceOrder, DeviceSpecs, DiskFormat, DiskSpec};
use vmint_factory::{MAX_DEVICES, NicSpec};

use crate::http::bounded::List;
use crate::http::problem::Problem;

/// A network interface: one of the two.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Nic)]
pub(in crate::http) struct NicBody {
    /// A tap of the host that is there already. It belongs to the caller, or the caller is root.
    #[schema(example = "tap0")]
    tap: Option<String>,
    /// `true`: a network of the hypervisor's own, which reaches whatever its process can reach.
    user: Option<bool>,
}

/// A disk.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Disk)]
pub(in crate::http) struct DiskBody {
    /// A regular file or a block device of the host, which the caller may open.
    #[schema(example = "/var/lib/images/data.img")]
    path: String,
    /// How its content is read; `raw` when absent. It is never guessed.
    format: Option<DiskFormatBody>,
    /// Whether the guest cannot write to it; `false` when absent. One sandbox has a disk that is written to, any number one
    /// that is only read.
    read_only: Option<bool>,
}

/// How a disk's content is read.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DiskFormat)]
pub(in crate::http) enum DiskFormatBody {
    /// Byte for byte.
    Raw,
    /// QEMU's own format, of one file.
    Qcow2,
}

/// The cache's order for devices; none when none are asked for.
pub(super) fn device_order(
    nics: List<NicBody, MAX_DEVICES>,
    disks: List<DiskBody, MAX_DEVICES>,
    caller: Option<Caller>,
    has_user_networks: bool,
) -> Result<Option<DeviceOrder>, Problem> {
    let too_many = |count: &str| {
        Problem::not_possible(format!(
            "nics and disks are {count} together, and the limit is {MAX_DEVICES}"
        ))
    };
    let more = || too_many(&format!("more than {MAX_DEVICES}"));
    let (nics, disks) = (
        nics.within().ok_or_else(more)?,
        disks.within().ok_or_else(more)?,
    );
    let specs = DeviceSpecs {
        nics: nics.into_iter().map(nic).collect::<Result<_, _>>()?,
        disks: disks.into_iter().map(disk).collect::<Result<_, _>>()?,
    };
    if specs.count() == 0 {
        return Ok(None);
    }
    if specs.count() > MAX_DEVICES {
        return Err(too_many(&specs.count().to_string()));
    }
    let Some(caller) = caller else {
        return Err(Problem::not_possible(
            "nics and disks name things of the host: they are possible over the Unix socket only",
        ));
    };
    if !has_user_networks && specs.nics.iter().any(|nic| matches!(nic, NicSpec::User)) {
        return Err(Problem::not_possible(
            "a guest with {\"user\": true} could reach this service over TCP, as the service and QEMU have the same user: \
             set server.listen = \"\", or give it a tap",
        ));
    }
    Ok(Some(DeviceOrder { specs, caller }))
}

fn nic(body: NicBody) -> Result<NicSpec, Problem> {
    match (body.tap, body.user) {
        (Some(tap), None) => Ok(NicSpec::Tap(tap)),
        (None, Some(true)) => Ok(NicSpec::User),
        _ => Err(Problem::invalid(
            "each of nics must be {\"tap\": \"<name>\"} or {\"user\": true}",
        )),
    }
}

fn disk(body: DiskBody) -> Result<DiskSpec, Problem> {
    let path = PathBuf::from(&body.path);
    if !Path::is_absolute(&path) || body.path.contains('\0') {
        return Err(Problem::invalid(
            "the path of each of disks must be absolute",
        ));
    }
    let format = match body.format {
        None | Some(DiskFormatBody::Raw) => DiskFormat::Raw,
        Some(DiskFormatBody::Qcow2) => DiskFormat::Qcow2,
    };
    Ok(DiskSpec {
        path,
        format,
        read_only: body.read_only.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_network_is_refused_where_its_guest_could_not_be_kept_out() -> std::io::Result<()>
    {
        let (ours, _theirs) = tokio::net::UnixStream::pair()?;
        let caller = Caller::of_peer(&ours)?;
        let user = || {
            let (tap, user) = (None, Some(true));
            vec![NicBody { tap, user }]
        };
        let tap = vec![NicBody {
            tap: Some("tap0".to_owned()),
            user: None,
        }];
        let order =
            |nics, has| device_order(Vec::into(nics), List::default(), Some(caller.clone()), has);
        assert!(order(user(), true).is_ok());
        assert!(order(tap, false).is_ok());
        let problem = order(user(), false).err().map(|it| it.detail().to_owned());
        assert!(
            problem.is_some_and(|detail| detail.contains("server.listen = \"\"")),
            "the reason and the mend"
        );
        Ok(())
    }
}
