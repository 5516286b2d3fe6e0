//! The processor service: opens the engine, works on its shards until told to stop.

use std::process::ExitCode;

use axum::Router;
use processor::Processor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    engine::service::run(config::Role::Processor, async |mut service| {
        let processor = Processor::start(&service.engine, service.settings.room_log_kept, &service.tasks);
        service.listen(Router::new()).await?;
        service.until_stopped().await;
        if !processor.stop().await {
            tracing::warn!("it did not finish in time; what it held will be done again");
        }
        Ok(())
    })
}
