//! A running server of any kind that is compared: started alike, measured alike.

use crate::cli::Setup;
use crate::echo::Echo;
use crate::load::System;
use crate::redis::Redis;
use crate::server::Server;

/// A server, stopped when this is dropped.
#[derive(Debug)]
pub enum Running {
    /// The database.
    Ostrakon(Server),
    /// Its peer.
    Redis(Redis),
    /// Nothing but network.
    Echo(Echo),
}

impl Running {
    /// Starts one on fresh data, pinned to the server's CPU.
    ///
    /// # Errors
    /// A sentence, if it does not come up.
    pub fn start(system: System, setup: &Setup) -> Result<Self, String> {
        let cpu = setup.common.server_cpu;
        match system {
            System::Ostrakon => setup.start_server().map(Self::Ostrakon),
            System::Redis => Redis::start(&setup.workspace, cpu).map(Self::Redis),
            System::Echo => Echo::start(cpu).map(Self::Echo),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        match self {
            Self::Ostrakon(server) => server.address(),
            Self::Redis(redis) => redis.address(),
            Self::Echo(echo) => echo.address(),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        match self {
            Self::Ostrakon(server) => server.id(),
            Self::Redis(redis) => redis.id(),
            Self::Echo(echo) => echo.id(),
        }
    }

    /// CPU time it has used so far, in seconds.
    ///
    /// # Errors
    /// A sentence, if it has ended.
    pub fn cpu_seconds(&self) -> Result<f64, String> {
        crate::machine::process_cpu_seconds(self.id())
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// A sentence, if the database did not drain and end by itself; for the others any end is good.
    pub fn stop(self) -> Result<(), String> {
        match self {
            Self::Ostrakon(server) => server.stop(),
            Self::Redis(_) | Self::Echo(_) => Ok(()),
        }
    }
}
