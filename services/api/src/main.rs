//! The program `api`: settings, engine, routes, and a good end.

use std::process::ExitCode;

use api::ApiParts;
use auth::Tokens;
use config::Role;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    engine::service::run(Role::Api, async |mut service| {
        let settings = service.settings.clone();
        let secret = settings.jwt_secret.as_ref().ok_or("JWT_ACCESS_TOKEN is required")?;
        let tokens = Tokens::new(secret, settings.access_lifetime);
        let engine = service.engine.clone();
        let intake = api::intake(&settings, &engine, &service.tasks);
        let (tasks, stopping) = (service.tasks.clone(), service.stopping());
        let parts = ApiParts { settings, engine, tokens, intake, tasks, stopping };
        service.listen(api::router(parts).fallback(api::unknown_route)).await?;
        service.until_stopped().await;
        Ok(())
    })
}
