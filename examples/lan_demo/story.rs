//! What the demo does and says.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hereabouts::{Instance, Registry, Resolver, Scope, Snapshot, State, Strategy, Watch};
use tokio::process::{Child, Command};

use crate::http_client::{self, BoxError};

/// Prints a fact with its time.
macro_rules! fact {
    ($began:expr, $($text:tt)*) => {
        println!("{:7.3} s  {}", $began.elapsed().as_secs_f64(), format_args!($($text)*))
    };
}

struct Demo {
    began: Instant,
    registry: Registry,
    watch: Watch,
}

/// Tells the whole story. Every wait in it has an end.
pub(crate) async fn tell() -> Result<(), BoxError> {
    let began = Instant::now();
    let registry = hereabouts::connect().await?;
    let watch = registry.watch(Scope::All)?;
    let mut demo = Demo {
        began,
        registry,
        watch,
    };
    fact!(began, "listening with {}", demo.registry.describe());

    let mut first = demo.start("greeter", "greeter-1").await?;
    let mut second = demo.start("greeter", "greeter-2").await?;
    let mut clock = demo.start("clock", "clock-1").await?;
    // In turn, so that each of them is seen to answer, or not to.
    let greeter = demo.registry.resolver_builder("greeter")?;
    let greeter = greeter.strategy(Strategy::RoundRobin).build()?;
    let clocks = demo.registry.resolver("clock")?;
    demo.call(&greeter).await?;
    demo.call(&greeter).await?;
    demo.call(&clocks).await?;

    demo.stop(&mut first, "greeter-1").await?;
    demo.call(&greeter).await?;
    first = demo.start("greeter", "greeter-1").await?;

    demo.crash(&mut second, "greeter-2").await?;
    for _ in 0..3 {
        demo.call(&greeter).await?;
    }
    demo.forgotten("greeter-2").await?;
    second = demo.start("greeter", "greeter-2").await?;
    demo.call(&greeter).await?;
    demo.call(&greeter).await?;

    for (child, id) in [
        (&mut first, "greeter-1"),
        (&mut second, "greeter-2"),
        (&mut clock, "clock-1"),
    ] {
        demo.stop(child, id).await?;
    }
    demo.registry.close().await?;
    fact!(began, "closed; nothing is left running");
    Ok(())
}

impl Demo {
    /// Starts a service, and waits until it is seen.
    async fn start(&mut self, service: &str, id: &str) -> Result<Child, BoxError> {
        let before = self.generation(id);
        let started = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", service, id])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let wanted = id.to_owned();
        let snapshot = self
            .seen(move |s| find(s, &wanted).is_some_and(|i| i.generation() > before))
            .await?;
        let took = started.elapsed().as_millis();
        if let Some(instance) = find(&snapshot, id) {
            let pid = instance.metadata().get("pid").unwrap_or("?");
            let addresses: Vec<String> = instance.addresses().iter().map(ToString::to_string).collect();
            let at = addresses.join(", ");
            fact!(
                self.began,
                "+ {id} (process {pid}) found at {at}, {took} ms after its start"
            );
        }
        Ok(child)
    }

    /// Ends a service politely, and says when the others knew.
    async fn stop(&mut self, child: &mut Child, id: &str) -> Result<(), BoxError> {
        let told = Instant::now();
        end(child, true)?;
        let wanted = id.to_owned();
        self.seen(move |s| find(s, &wanted).is_none_or(|i| i.state() != State::Up))
            .await?;
        let known = told.elapsed().as_secs_f64() * 1000.0;
        fact!(
            self.began,
            "- {id} was told to end (SIGTERM): {known:.1} ms later nobody picks it"
        );
        within(child.wait()).await??;
        Ok(())
    }

    /// Kills a service, which leaves no time for a goodbye.
    async fn crash(&mut self, child: &mut Child, id: &str) -> Result<(), BoxError> {
        end(child, false)?;
        within(child.wait()).await??;
        fact!(
            self.began,
            "x {id} was killed (SIGKILL): it said nothing, and is still listed"
        );
        Ok(())
    }

    /// Waits until a killed service is listed no more, since it did not answer when it was asked.
    async fn forgotten(&mut self, id: &str) -> Result<(), BoxError> {
        let began = Instant::now();
        let wanted = id.to_owned();
        self.seen(move |s| find(s, &wanted).is_none()).await?;
        let took = began.elapsed().as_secs_f64();
        fact!(
            self.began,
            "- {id} did not answer the network's question for {took:.1} s: it is listed no more"
        );
        Ok(())
    }

    /// Calls a service by name; where an instance does not answer it tries again, which is another
    /// one's turn as soon as there is another.
    async fn call(&self, resolver: &Resolver) -> Result<(), BoxError> {
        let service = resolver.service();
        let mut refused = String::new();
        let mut pause = Duration::from_millis(1);
        loop {
            let pick = resolver.pick().await?;
            match http_client::fetch(&pick.url("/")).await {
                Ok(reply) => {
                    let at = pick.address();
                    fact!(self.began, "  GET http://{service}/ -> {refused}{at} -> {reply}");
                    return Ok(());
                }
                Err(error) if pause > LONGEST_PAUSE => return Err(error),
                Err(error) => {
                    refused = format!("{} refused, so another was picked -> ", pick.id());
                    pick.failed(&*error);
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
    }

    async fn seen(
        &mut self,
        wanted: impl FnMut(&Snapshot) -> bool,
    ) -> Result<std::sync::Arc<Snapshot>, BoxError> {
        Ok(within(self.watch.until(wanted)).await??)
    }

    fn generation(&self, id: &str) -> hereabouts::Generation {
        find(&self.watch.snapshot(), id)
            .map(Instance::generation)
            .unwrap_or_default()
    }
}

fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Option<&'a Instance> {
    snapshot
        .iter()
        .map(|instance| &**instance)
        .find(|instance| instance.id() == id)
}

/// SIGTERM or SIGKILL. Elsewhere than on Unix there is only the second.
fn end(child: &mut Child, politely: bool) -> Result<(), BoxError> {
    #[cfg(unix)]
    if politely {
        let pid = child.id().ok_or("the process has ended already")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        return Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?);
    }
    let _ = politely;
    Ok(child.start_kill()?)
}

/// Between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

async fn within<T>(future: impl Future<Output = T>) -> Result<T, BoxError> {
    let waited = tokio::time::timeout(Duration::from_secs(10), future).await;
    Ok(waited.map_err(|_| "the demo has waited for 10 s; is multicast allowed here?")?)
}
