//! What is asked of a machine's guest.

use super::*;

use crate::time::takes;

impl Guest for Handle {
    fn ping(&self, deadline: Duration) -> BoxFuture<'_, Result<(), GuestError>> {
        async move {
            if !self.is_held() {
                // A service that is gone asks nothing.
                return Err(GuestError::Closed);
            }
            self.0.pings.fetch_add(1, Ordering::SeqCst);
            if self.0.is_mute() {
                if self.0.ignores_deadlines.load(Ordering::SeqCst) {
                    takes(RECONNECT).await;
                }
                takes(deadline).await;
                return Err(GuestError::Silent {
                    command: "ping",
                    after: deadline,
                });
            }
            self.0.is_heard();
            Ok(())
        }
        .boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        async move {
            match request.argv[0].as_str() {
                "sleep" => std::future::pending().await,
                "missing" => Err(ExecError::Spawn {
                    argv0: "missing".to_owned(),
                    reason: "no".to_owned(),
                    errno: 2,
                }),
                "crash" => {
                    self.0.dies("it crashed");
                    Err(ExecError::Guest(GuestError::Closed))
                }
                _ => Ok(ExecOutcome {
                    exit_code: Some(0),
                    signal: None,
                    stdout: b"hello".to_vec(),
                    stderr: Vec::new(),
                    truncated: false,
                    elapsed: Duration::from_millis(1),
                }),
            }
        }
        .boxed()
    }

    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        async move {
            yield_now().await;
            if self.0.refuses_hostnames {
                return Err(BindError::Guest(GuestError::Closed));
            }
            if binding.files.iter().any(|file| file.path == "/folder") {
                return Err(BindError::Refused {
                    reason: "/folder: is a directory".to_owned(),
                });
            }
            self.0.bound.lock().unwrap().push(binding.clone());
            if let Some(name) = &binding.hostname {
                name.clone_into(&mut self.0.hostname.lock().unwrap());
            }
            Ok(())
        }
        .boxed()
    }

    fn exec_stream(&self, _: StreamRequest) -> BoxFuture<'_, Result<ExecStream, ExecError>> {
        async { Err(ExecError::Guest(GuestError::Closed)) }.boxed()
    }

    fn start_process(&self, order: ProcessOrder) -> BoxFuture<'_, Result<Process, ProcessError>> {
        async { self.0.processes.start(order) }.boxed()
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>, ProcessError>> {
        async { Ok(self.0.processes.all()) }.boxed()
    }

    fn find_process<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Process, ProcessError>> {
        async { self.0.processes.find(id) }.boxed()
    }

    fn kept_output<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<PartialOutput, ProcessError>> {
        async { self.0.processes.kept(id) }.boxed()
    }

    fn attach_process<'a>(
        &'a self,
        id: &'a str,
        replay: bool,
    ) -> BoxFuture<'a, Result<ExecStream, ProcessError>> {
        async move { self.0.processes.attach(id, replay) }.boxed()
    }

    fn signal_process<'a>(
        &'a self,
        id: &'a str,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        async move { self.0.processes.signal(id, signal) }.boxed()
    }

    fn end_process<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ProcessError>> {
        async { self.0.processes.end(id) }.boxed()
    }

    fn read_file<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<FileReader, FileError>> {
        async { Err(FileError::Guest(GuestError::Closed)) }.boxed()
    }

    fn write_file<'a>(
        &'a self,
        _: &'a str,
        _: WriteOptions,
    ) -> BoxFuture<'a, Result<FileWriter, FileError>> {
        async { Err(FileError::Guest(GuestError::Closed)) }.boxed()
    }
}
