//! `lbctl`, the command line of littlebox.

mod cli;

fn main() {
    // exit, not return: nothing is left to be dropped, and dropping takes time.
    std::process::exit(cli::main());
}
