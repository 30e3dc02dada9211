//! Tells from inside a container what is open and what is closed there, in stable lines for a
//! golden file. Built static, so that it runs in any root, bound to a path of the container.
//!
//! ```text
//! littlebox-auditor [KEY=VALUE...]       everything, against the host's namespaces and capabilities
//! littlebox-auditor call NAME [ARG...]   one system call; what it returned
//! littlebox-auditor call32 NR [ARG...]   one by the 32-bit entry, int 0x80
//! ```

// Test code: a broken precondition ends the program with a message.
#![allow(clippy::unwrap_used)]

mod calls;
mod facts;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((verb, [name, args @ ..])) if verb == "call" => {
            let number = calls::number(name);
            report(sys::call(number, numbers(args)));
        }
        Some((verb, [number, args @ ..])) if verb == "call32" => {
            let number = number.parse().expect("the number of a call");
            report(sys::call32(number, numbers(args)));
        }
        _ => {
            facts::tell(&args);
            calls::tell();
        }
    }
    ExitCode::SUCCESS
}

/// `ok N` or `errno N`.
fn report(result: i64) {
    if (-4095..0).contains(&result) {
        println!("errno {}", -result);
    } else {
        println!("ok {result}");
    }
}

/// Decimal, or hexadecimal after `0x`.
fn numbers(args: &[String]) -> [u64; 6] {
    let mut numbers = [0; 6];
    for (number, text) in numbers.iter_mut().zip(args) {
        *number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        }
        .expect("arguments are numbers");
    }
    numbers
}
