//! A bar on the terminal for commands that take long; elsewhere nothing.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two drawings at least.
const DRAW_HZ: u8 = 5;

/// How far a command has got.
pub struct Progress(ProgressBar);

impl Progress {
    /// For a person at standard error, if there is one.
    pub fn on_terminal() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAW_HZ));
        const STYLE: &str =
            "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {elapsed} eta {eta}";
        // A mistake in the template leaves the plain style.
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// For nobody.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// A new phase called `name` of about `total` steps begins.
    pub fn begin(&self, name: &str, total: u64) {
        self.0.reset();
        self.0.set_length(total);
        self.0.set_message(name.to_owned());
    }

    /// So many steps more are done; the total grows if it was too low.
    pub fn advance(&self, steps: u64) {
        self.0.inc(steps);
        let done = self.0.position();
        if self.0.length().is_some_and(|total| total < done) {
            self.0.set_length(done);
        }
    }
}

/// The bar goes: what follows is for the report.
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
