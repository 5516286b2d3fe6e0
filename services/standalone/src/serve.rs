//! `serve`: gateway, processor and api on one engine and one port.
//!
//! The order of the end is the invariant: first nothing new comes in, then what is open is
//! finished, then the engine closes.

use std::process::ExitCode;

use api::ApiParts;
use auth::Tokens;
use config::Settings;
use engine::service::{Failure, Sockets, refuse, run_with};
use engine::{DataLock, Service};
use gateway::{Gateway, GatewayParts};
use processor::Processor;

use crate::banner;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(mut settings: Settings) -> ExitCode {
    let lock = if settings.is_distributed() { Ok(None) } else { DataLock::take(&settings.data_dir).map(Some) };
    let lock = match lock {
        Ok(lock) => lock,
        Err(problem) => return refuse(&[problem]),
    };
    let sockets = match Sockets::bind(&settings) {
        Ok(sockets) => sockets,
        Err(problem) => return refuse(&[problem]),
    };
    if let Err(problem) = settings.make_secrets() {
        return refuse(&[problem]);
    }
    let code = run_with(settings, sockets, serve);
    drop(lock);
    code
}

async fn serve(mut service: Service) -> Result<(), Failure> {
    let (settings, engine, tasks) = (service.settings.clone(), service.engine.clone(), service.tasks.clone());
    let secret = settings.jwt_secret.as_ref().ok_or("there is no JWT_ACCESS_TOKEN")?;
    let tokens = Tokens::new(secret, settings.access_lifetime);
    let processor = Processor::start(&engine, settings.room_log_kept, &tasks);
    let stopping = service.stopping();
    let parts = GatewayParts { settings: settings.clone(), engine: engine.clone(), tasks: tasks.clone() };
    let gateway = Gateway::start(parts);
    let intake = gateway.intake();
    let api = api::router(ApiParts { settings: settings.clone(), engine, tokens, intake, tasks, stopping });
    let address = service.listen(gateway.router().merge(api).fallback(api::unknown_route)).await?;
    banner::print(&settings, address);
    service.until_stopped().await;
    gateway.drain().await;
    if !processor.stop().await {
        tracing::warn!("the processor did not finish in time; what it held will be done again");
    }
    Ok(())
}
