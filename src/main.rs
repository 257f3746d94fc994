//! The program: arguments in, exit code out. 0 is success, 1 a failure that one line explains, 2 a
//! mistake in the arguments.

use std::process::ExitCode;

use sixgate::cli::{self, Command};
use sixgate::sys::reload::Source;
use sixgate::sys::wipe::Wiping;
use sixgate::sys::{client_set, commands, doctor, service};

/// See Cargo.toml.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: Wiping<dlmalloc::GlobalDlmalloc> = Wiping(dlmalloc::GlobalDlmalloc);

#[cfg(not(target_env = "musl"))]
#[global_allocator]
static ALLOCATOR: Wiping<std::alloc::System> = Wiping(std::alloc::System);

fn main() -> ExitCode {
    let mut arguments = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.into_string() {
            Ok(text) => arguments.push(text),
            Err(argument) => {
                return fail(2, &format!("'{}' is not UTF-8 text", argument.display()));
            }
        }
    }
    match cli::parse(&arguments) {
        Err(error) => fail(2, &error),
        Ok(command) => match execute(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error),
        },
    }
}

fn execute(command: Command) -> Result<(), String> {
    match command {
        Command::Up(options) => service::up(&options),
        Command::Init(options) => service::init(&options).map(drop),
        Command::Run(options) => {
            service::require_privilege()?;
            service::run(Source::file(&options.file))
        }
        Command::OpenVpn(arguments) => {
            service::require_privilege()?;
            service::run(Source::arguments(arguments))
        }
        Command::Check(options) => service::check(&options.file),
        Command::ClientAdd(options) => commands::client_add(&options),
        Command::ClientList(options) => commands::client_list(&options),
        Command::ClientRevoke(options) => commands::client_revoke(&options),
        Command::ClientSet(options) => client_set::run(&options),
        #[cfg(feature = "totp")]
        Command::ClientTotp(options) => sixgate::sys::client_totp::run(&options),
        Command::Status(options) => commands::status(&options),
        Command::Kick(options) => commands::kick(&options),
        Command::Log(options) => commands::log(&options),
        #[cfg(feature = "selftest")]
        Command::Selftest => sixgate::sys::selftest::run(),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Print(text) => commands::print(&text),
    }
}

/// Reports on standard error, and in the log when that is somewhere else.
fn fail(code: u8, error: &str) -> ExitCode {
    for line in error.lines() {
        eprintln!("sixgate: {line}");
    }
    service::log_failure(error);
    ExitCode::from(code)
}
