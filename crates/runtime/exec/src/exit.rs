//! What an exit code means. 0 is success; the codes of `sysexits.h` that no other attempt can mend
//! are permanent; everything else may be tried again.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// `EX_TEMPFAIL`: with a `snooze` line the cycle runs again later and spends no attempt.
pub const TEMPFAIL: i32 = 75;

/// A code with a meaning of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The number.
    pub code: i32,
    /// Its name in `sysexits.h`, or the shell's convention.
    pub name: &'static str,
    /// In words.
    pub meaning: &'static str,
    /// Whether another attempt cannot help: a window is abandoned, a job or event is a dead letter.
    pub permanent: bool,
}

/// Every code that has a name.
pub const CODES: [Code; 17] = [
    code(64, "EX_USAGE", "it was called in the wrong way", true),
    code(65, "EX_DATAERR", "its input is wrong", true),
    code(66, "EX_NOINPUT", "an input file is missing", false),
    code(67, "EX_NOUSER", "a user does not exist", false),
    code(68, "EX_NOHOST", "a host does not exist", false),
    code(69, "EX_UNAVAILABLE", "a service is not available", false),
    code(70, "EX_SOFTWARE", "it found a defect in itself", false),
    code(71, "EX_OSERR", "the system refused", false),
    code(72, "EX_OSFILE", "a system file is missing", false),
    code(73, "EX_CANTCREAT", "it could not create a file", false),
    code(74, "EX_IOERR", "reading or writing failed", false),
    code(TEMPFAIL, "EX_TEMPFAIL", "not now", false),
    code(76, "EX_PROTOCOL", "a partner broke the protocol", false),
    code(77, "EX_NOPERM", "it may not do that", true),
    code(78, "EX_CONFIG", "its configuration is wrong", true),
    code(126, "126", "the shell may not run a command of it", false),
    code(127, "127", "the shell did not find a command of it", false),
];

const fn code(code: i32, name: &'static str, meaning: &'static str, permanent: bool) -> Code {
    Code { code, name, meaning, permanent }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With 0: what it printed is published.
    Success,
    /// With 75.
    NotNow,
    /// In a way that another attempt may mend; the text says how it ended.
    Failed(String),
    /// In a way that no other attempt mends.
    Hopeless(String),
}

/// Reads an exit status.
#[must_use]
pub fn ending(status: ExitStatus) -> Ending {
    if status.success() {
        return Ending::Success;
    }
    if let Some(signal) = status.signal() {
        let core = if status.core_dumped() { " and left a core file" } else { "" };
        return Ending::Failed(format!("killed by {}{core}", signal_name(signal)));
    }
    let Some(n) = status.code() else {
        return Ending::Failed(format!("ended in an unknown way ({status})"));
    };
    match CODES.iter().find(|c| c.code == n) {
        Some(c) if c.code == TEMPFAIL => Ending::NotNow,
        Some(c) if c.permanent => {
            Ending::Hopeless(format!("exited with {n} ({}: {})", c.name, c.meaning))
        }
        Some(c) if c.name == c.code.to_string() => {
            Ending::Failed(format!("exited with {n} ({})", c.meaning))
        }
        Some(c) => Ending::Failed(format!("exited with {n} ({}: {})", c.name, c.meaning)),
        None => Ending::Failed(format!("exited with {n}")),
    }
}

/// `SIGSEGV` for its number on this system.
#[must_use]
pub fn signal_name(number: i32) -> String {
    use rustix::process::Signal as S;
    let names = [
        (S::HUP, "SIGHUP"),
        (S::INT, "SIGINT"),
        (S::QUIT, "SIGQUIT"),
        (S::ILL, "SIGILL"),
        (S::TRAP, "SIGTRAP"),
        (S::ABORT, "SIGABRT"),
        (S::BUS, "SIGBUS"),
        (S::FPE, "SIGFPE"),
        (S::KILL, "SIGKILL"),
        (S::USR1, "SIGUSR1"),
        (S::SEGV, "SIGSEGV"),
        (S::USR2, "SIGUSR2"),
        (S::PIPE, "SIGPIPE"),
        (S::ALARM, "SIGALRM"),
        (S::TERM, "SIGTERM"),
        (S::XCPU, "SIGXCPU"),
        (S::XFSZ, "SIGXFSZ"),
        (S::SYS, "SIGSYS"),
    ];
    names
        .iter()
        .find(|(s, _)| s.as_raw() == number)
        .map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> Ending {
        ending(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn each_code_has_its_outcome() {
        assert_eq!(exited(0), Ending::Success);
        assert_eq!(exited(1), Ending::Failed("exited with 1".into()));
        assert_eq!(exited(TEMPFAIL), Ending::NotNow);
        for n in [64, 65, 77, 78] {
            assert!(matches!(exited(n), Ending::Hopeless(_)), "{n}");
        }
        for n in [2, 66, 67, 68, 69, 70, 71, 72, 73, 74, 76, 100, 126, 127, 255] {
            assert!(matches!(exited(n), Ending::Failed(_)), "{n}");
        }
        assert_eq!(
            exited(65),
            Ending::Hopeless("exited with 65 (EX_DATAERR: its input is wrong)".into())
        );
        assert_eq!(
            exited(127),
            Ending::Failed("exited with 127 (the shell did not find a command of it)".into())
        );
    }

    #[test]
    fn a_signal_is_named() {
        let segv = ending(ExitStatus::from_raw(11));
        assert_eq!(segv, Ending::Failed("killed by SIGSEGV".into()));
        let abort = ending(ExitStatus::from_raw(6 | 0x80));
        assert_eq!(abort, Ending::Failed("killed by SIGABRT and left a core file".into()));
        assert_eq!(signal_name(64), "signal 64");
    }
}
