//! `pmz agent probe`: the kubelet's probes of an agent's pod.

use std::process::ExitCode as Code;

pub(super) fn run(args: &pmz_agent::ProbeArgs) -> Code {
    match pmz_agent::probe(args) {
        Ok(()) => Code::SUCCESS,
        Err(error) => {
            // The kubelet puts it into an event.
            eprintln!("{error}");
            Code::FAILURE
        }
    }
}
