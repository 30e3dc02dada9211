//! `littleboxd`, the littlebox daemon.

use std::process::ExitCode;

use clap::Parser;
use littleboxd::config::{Args, Config, LogFormat};
use littleboxd::daemon::{self, Inherited};
use littleboxd::worker;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == worker::ARGUMENT)
    {
        return worker::main();
    }
    let args = Args::parse();
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("littleboxd: {error:#}");
            return ExitCode::from(2);
        }
    };
    if args.check_config {
        println!("the configuration is valid");
        return ExitCode::SUCCESS;
    }
    init_log(&config);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    // Taken from the environment while there is only one thread.
    let inherited = inherited()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .max_blocking_threads(128)
        .enable_all()
        .build()?;
    let result = runtime.block_on(daemon::run(config, inherited));
    // Followers of logs may still sit in a blocking read; nothing of theirs is worth waiting for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// The listening socket that systemd hands over (sd_listen_fds(3)).
fn inherited() -> anyhow::Result<Inherited> {
    let mut fds = sd_notify::listen_fds()?;
    let Some(fd) = fds.next() else {
        return Ok(Inherited::default());
    };
    // A number becomes a descriptor without `unsafe` by duplicating it through a pidfd of
    // ourselves (pidfd_getfd(2)).
    let own = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty())?;
    let socket =
        rustix::process::pidfd_getfd(&pidfd, fd, rustix::process::PidfdGetfdFlags::empty())?;
    Ok(Inherited {
        listener: Some(socket.into()),
    })
}

fn init_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LITTLEBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(&config.log_level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log_format {
        // The journal adds the time itself and shows escapes as they are.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder
                .without_time()
                .with_ansi(false)
                .with_target(false)
                .init();
        }
        LogFormat::Text => {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(terminal).with_target(false).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
