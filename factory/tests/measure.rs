mod support;
use support::{Lab, guest_spec, order};
use vmint_factory::ExecRequest;
#[tokio::test(flavor = "multi_thread")]
async fn measure() -> anyhow::Result<()> {
    let lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let m = generation.manifest();
    println!(
        "M agent {:?} boot {:?} first {:?} steps {:?}",
        m.agent, m.boot_phases.total, m.first_exec, m.build_phases
    );
    for _ in 0..5 {
        let vm = lab.factory.mint(&generation, order("x")).await?;
        let a0 = vm.anonymous_bytes()? / 1024;
        let p = vm.phases();
        let e = || ExecRequest::new(vec!["/bin/echo".into(), "hi".into()], support::LONG);
        let first = vm.exec(e()).await?.elapsed;
        let a1 = vm.anonymous_bytes()? / 1024;
        let second = vm.exec(e()).await?.elapsed;
        let third = vm.exec(e()).await?.elapsed;
        println!(
            "M spawn {:?} qmp {:?} load {:?} resume {:?} agent {:?} identity {:?} total {:?} | first {first:?} second {second:?} third {third:?} | anon {a0} {a1} KiB",
            p.spawn, p.qmp, p.load, p.resume, p.agent, p.identity, p.total
        );
        vm.end().await;
    }
    lab.close().await
}
