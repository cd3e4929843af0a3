//! The command `crash`: stops a node at random moments under load and checks that nothing acknowledged is lost.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that drives nodes from outside has a clock"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ostrakon_tests::crash::{self, Failure, Loadgen, Mode, Moment, Report, Settings};
use ostrakon_tests::process::{FileSystem, binary};

const EXIT_FAILED: u8 = 1;
const EXIT_VIOLATION: u8 = 2;
const EXIT_UNAVAILABLE: u8 = 4;

/// Stops a node at random moments under load, by SIGKILL or by a loss of power, and checks that everything
/// acknowledged is there again, once.
///
/// Exit codes: 0 nothing lost; 1 wrong usage or a failure; 2 the database broke a promise (the data are kept); 4 this
/// machine lacks something that the mode needs.
#[derive(Debug, Parser)]
#[command(name = "crash", max_term_width = 110)]
struct Arguments {
    /// How the node is stopped. `power` shuts down a file system on a loop device without a flush: needs root,
    /// `losetup` and `xfs_io`
    #[arg(long, value_enum, default_value = "kill")]
    mode: ModeName,
    /// How often
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Working directory, new or empty, on a real disk (no tmpfs): data or disk image, register, the node's output
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The binary `ostrakon` [default: the one next to this program]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Also run this `loadgen`: YCSB-A with a register, checked after each restart
    #[arg(long, value_name = "PATH")]
    loadgen: Option<PathBuf>,
    /// Records that loadgen loads
    #[arg(long, default_value_t = 100_000, requires = "loadgen")]
    records: u64,
    /// Bytes of loadgen's values
    #[arg(long, default_value_t = 1024, requires = "loadgen")]
    value_size: u64,
    /// Of everything random [default: of the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Cores of the node
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    cores: u16,
    /// Shards of the cluster
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// Connections that increment counters, and as many that write plain keys
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// Keys of each of them
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    keys: u32,
    /// Earliest moment of a stop after the start of the load, in milliseconds
    #[arg(long, default_value_t = 200)]
    after_ms_min: u64,
    /// Latest such moment
    #[arg(long, default_value_t = 3000)]
    after_ms_max: u64,
    /// File system of mode power
    #[arg(long, value_enum, default_value = "ext4")]
    fs: FileSystemName,
    /// Size of the disk image of mode power, in GiB; it is sparse
    #[arg(long, default_value_t = 8, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=1024))]
    image_gib: u64,
    /// Print one JSON document on standard output instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ModeName {
    Kill,
    Power,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FileSystemName {
    Ext4,
    Xfs,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed standard output leaves nobody to tell.
            let _unread = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_FAILED)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    catch_signals();
    let is_json = arguments.json;
    let result = settings(arguments).map_err(Failure::Failed).and_then(|settings| {
        eprintln!(
            "seed {}, directory {}",
            settings.seed,
            settings.directory.display()
        );
        crash::run(&settings, &mut |line| eprintln!("{line}"))
    });
    match result {
        Ok(report) => finish(&report, is_json),
        Err(Failure::Unavailable(sentence)) => {
            eprintln!("crash: not possible here: {sentence}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        Err(Failure::Failed(sentence)) => {
            eprintln!("crash: {sentence}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn finish(report: &Report, is_json: bool) -> ExitCode {
    if is_json {
        println!("{:#}", report.to_json());
    } else {
        println!("\n{report}");
    }
    if report.all_violations().next().is_some() {
        ExitCode::from(EXIT_VIOLATION)
    } else {
        ExitCode::SUCCESS
    }
}

fn settings(arguments: Arguments) -> Result<Settings, String> {
    if arguments.after_ms_min > arguments.after_ms_max {
        return Err("--after-ms-min is above --after-ms-max".to_owned());
    }
    let seed = arguments.seed.unwrap_or_else(seed_of_the_clock);
    let file_system = match arguments.fs {
        FileSystemName::Ext4 => FileSystem::Ext4,
        FileSystemName::Xfs => FileSystem::Xfs,
    };
    Ok(Settings {
        mode: match arguments.mode {
            ModeName::Kill => Mode::Kill,
            ModeName::Power => Mode::Power {
                file_system,
                image_bytes: arguments.image_gib << 30,
            },
        },
        moment: Moment::Time(
            Duration::from_millis(arguments.after_ms_min),
            Duration::from_millis(arguments.after_ms_max),
        ),
        rounds: arguments.rounds,
        directory: std::path::absolute(&arguments.data).map_err(|error| format!("--data: {error}"))?,
        binary: match arguments.binary {
            Some(path) => path,
            None => binary::next_to_this_program("ostrakon")?,
        },
        cores: arguments.cores,
        shards: arguments.shards,
        seed,
        clients: arguments.clients,
        keys_per_client: arguments.keys,
        loadgen: arguments.loadgen.map(|program| Loadgen {
            program,
            records: arguments.records,
            value_bytes: arguments.value_size,
        }),
    })
}

fn seed_of_the_clock() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos() as u64
}

/// SIGINT and SIGTERM end the run at its next step, so that everything is unmounted and detached.
fn catch_signals() {
    extern "C" fn on_signal(_signal: libc::c_int) {
        crash::interrupt();
    }
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores into an atomic, which is safe in a signal handler.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
