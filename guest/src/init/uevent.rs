//! One announcement of the kernel about a device.

/// The parts that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uevent<'a> {
    action: &'a str,
    subsystem: &'a str,
    alias: Option<&'a str>,
}

impl<'a> Uevent<'a> {
    /// Reads `action@path`, then `KEY=VALUE`, each ended by a zero byte. What is not understood is passed over.
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let mut event = Self::default();
        for field in bytes
            .split(|b| *b == 0)
            .filter_map(|field| std::str::from_utf8(field).ok())
        {
            match field.split_once('=') {
                Some(("ACTION", action)) => event.action = action,
                Some(("SUBSYSTEM", subsystem)) => event.subsystem = subsystem,
                Some(("MODALIAS", alias)) => event.alias = Some(alias),
                _ => {}
            }
        }
        event
    }

    /// A port came, went, or got its name (which is a `change`).
    pub(super) fn is_about_ports(&self) -> bool {
        self.subsystem == "virtio-ports"
    }

    /// What to look up a module by, for a device that has just come.
    pub(super) fn new_device_alias(&self) -> Option<&'a str> {
        self.alias.filter(|_| self.action == "add")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_gets_its_name() {
        let event = Uevent::parse(b"change@/devices/x/vport1p1\0ACTION=change\0DEVPATH=/devices/x/vport1p1\0SUBSYSTEM=virtio-ports\0");
        assert!(event.is_about_ports());
        assert_eq!(event.new_device_alias(), None);
    }

    #[test]
    fn a_device_comes_and_goes() {
        let event = Uevent::parse(b"add@/devices/x/virtio2\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000001v00001AF4\0");
        assert_eq!(event.new_device_alias(), Some("virtio:d00000001v00001AF4"));
        let event = Uevent::parse(b"remove@/devices/x/virtio2\0ACTION=remove\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000001v00001AF4\0");
        assert_eq!(event.new_device_alias(), None);
        assert_eq!(Uevent::parse(b"\xff\0=\0"), Uevent::default());
    }
}
