//! The gateway as a service of its own: settings, logs, engine, sockets, drain.

use std::process::ExitCode;

use gateway::{Gateway, GatewayParts};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    engine::service::run(config::Role::Gateway, async |mut service| {
        let gateway = Gateway::start(GatewayParts {
            settings: service.settings.clone(),
            engine: service.engine.clone(),
            tasks: service.tasks.clone(),
        });
        service.listen(gateway.router()).await?;
        service.until_stopped().await;
        gateway.drain().await;
        Ok(())
    })
}
