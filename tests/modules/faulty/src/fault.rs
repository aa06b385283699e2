//! The table of faults, by the names that modules and the setting `fault` have.

/// What the module does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    CreatePanics,
    CreateFails,
    /// Blocks its thread.
    CreateHangs,
    /// Takes the process with it.
    CreateAborts,
    ConfigurePanics,
    ConfigureFails,
    /// Never answers, as the other `…Hangs` from here on.
    ConfigureHangs,
    /// Logs 10 000 events in `configure`.
    LogsMuch,
    StartPanics,
    StartFails,
    StartHangs,
    /// Blocks its thread, as the other `…Blocks`.
    StartBlocks,
    StopHangs,
    ShutdownHangs,
    ShutdownBlocks,
    SessionsPanics,
    HealthUnhealthy,
}

impl Fault {
    pub(crate) fn by_name(name: &str) -> Self {
        match name {
            "create-panics" => Self::CreatePanics,
            "create-fails" => Self::CreateFails,
            "create-hangs" => Self::CreateHangs,
            "create-aborts" => Self::CreateAborts,
            "configure-panics" => Self::ConfigurePanics,
            "configure-fails" => Self::ConfigureFails,
            "configure-hangs" => Self::ConfigureHangs,
            "logs-much" => Self::LogsMuch,
            "start-panics" => Self::StartPanics,
            "start-fails" => Self::StartFails,
            "start-hangs" => Self::StartHangs,
            "start-blocks" => Self::StartBlocks,
            "stop-hangs" => Self::StopHangs,
            "shutdown-hangs" => Self::ShutdownHangs,
            "shutdown-blocks" => Self::ShutdownBlocks,
            "sessions-panics" => Self::SessionsPanics,
            "health-unhealthy" => Self::HealthUnhealthy,
            // `usage-late` among them: all report usage as late as in `shutdown`.
            _ => Self::None,
        }
    }
}

/// Blocks the thread for good.
pub(crate) fn block() -> ! {
    loop {
        std::thread::park();
    }
}
