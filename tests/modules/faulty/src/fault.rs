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
    /// Ends the process as if all were well.
    CreateExits,
    ConfigurePanics,
    ConfigureFails,
    /// Never answers, as the other `…Hangs` from here on.
    ConfigureHangs,
    ConfigureAborts,
    ConfigureExits,
    /// Logs 10 000 events in `configure`.
    LogsMuch,
    StartPanics,
    StartFails,
    StartHangs,
    /// Blocks its thread, as the other `…Blocks`.
    StartBlocks,
    StartAborts,
    StartExits,
    /// Reads from nowhere.
    StartSegfaults,
    StopHangs,
    ShutdownHangs,
    ShutdownBlocks,
    SessionsPanics,
    HealthUnhealthy,
    HealthAborts,
}

/// The tests write another fault's name over this one in a built library: two versions of one
/// module can then differ in what they do wrong.
#[used]
static BUILT_IN: [u8; 22] = *b"fault-when-called:good";

impl Fault {
    /// The built-in fault if there is one, else that of the name.
    pub(crate) fn of_library(name: &str) -> Self {
        // Read as it stands in the file, not as the compiler knows it.
        let bytes = std::hint::black_box(&BUILT_IN);
        let built_in = String::from_utf8_lossy(bytes);
        match Self::by_name(built_in.trim_end()) {
            Self::None => Self::by_name(name),
            fault => fault,
        }
    }

    pub(crate) fn by_name(name: &str) -> Self {
        match name {
            "create-panics" => Self::CreatePanics,
            "create-fails" => Self::CreateFails,
            "create-hangs" => Self::CreateHangs,
            "create-aborts" => Self::CreateAborts,
            "create-exits" => Self::CreateExits,
            "configure-panics" => Self::ConfigurePanics,
            "configure-fails" => Self::ConfigureFails,
            "configure-hangs" => Self::ConfigureHangs,
            "configure-aborts" => Self::ConfigureAborts,
            "configure-exits" => Self::ConfigureExits,
            "logs-much" => Self::LogsMuch,
            "start-panics" => Self::StartPanics,
            "start-fails" => Self::StartFails,
            "start-hangs" => Self::StartHangs,
            "start-blocks" => Self::StartBlocks,
            "start-aborts" => Self::StartAborts,
            "start-exits" => Self::StartExits,
            "start-segfaults" => Self::StartSegfaults,
            "stop-hangs" => Self::StopHangs,
            "shutdown-hangs" => Self::ShutdownHangs,
            "shutdown-blocks" => Self::ShutdownBlocks,
            "sessions-panics" => Self::SessionsPanics,
            "health-unhealthy" => Self::HealthUnhealthy,
            "health-aborts" => Self::HealthAborts,
            // `usage-late` among them: all report usage as late as in `shutdown`.
            _ => Self::None,
        }
    }
}

/// Reads where nothing is.
pub(crate) fn segfault() {
    #[allow(unsafe_code)]
    // SAFETY: none; the kernel ends the process for it, which is what the test is after.
    unsafe {
        std::hint::black_box(std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8)));
    }
}

/// Blocks the thread for good.
pub(crate) fn block() -> ! {
    loop {
        std::thread::park();
    }
}
