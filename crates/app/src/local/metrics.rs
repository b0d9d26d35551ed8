//! The metrics: the runtime's from the picture that `status` prints, and those of the parts that
//! only this process knows.

use watchbell_api::Result;
use watchbell_server::metrics::{Kind, Metrics, runtime};

use super::LocalControl;
use crate::installation::trouble;

/// Clock ticks a second in `/proc`: a constant of the kernel's interface on every architecture that
/// this program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

impl LocalControl {
    pub(super) async fn metrics_text(&self) -> Result<String> {
        let (status, coverage) =
            tokio::join!(self.full_status(), watchbell_market::coverage(&self.db));
        let status = status?;
        let mut metrics = Metrics::new();
        runtime(&mut metrics, &status);
        let mut lag = metrics.family(
            "watchbell_klines_lag_seconds",
            Kind::Gauge,
            "Time between the present and the end of a symbol's known candles.",
        );
        for c in coverage.map_err(|e| trouble(&e))? {
            let value = c.until.map(|t| status.now.since(t).as_secs_f64());
            lag.sample_if(&[("symbol", &c.symbol)], value);
        }
        let writer = self.db.metrics();
        for (name, kind, help, value) in [
            (
                "watchbell_db_jobs_total",
                Kind::Counter,
                "Lists of statements answered.",
                writer.jobs,
            ),
            (
                "watchbell_db_refused_total",
                Kind::Counter,
                "Lists of statements refused.",
                writer.refused,
            ),
            ("watchbell_db_commits_total", Kind::Counter, "Transactions.", writer.commits),
            (
                "watchbell_db_busy_total",
                Kind::Counter,
                "Times that another process held the write lock for too long.",
                writer.busy,
            ),
            (
                "watchbell_db_max_batch",
                Kind::Gauge,
                "Most lists of statements in one transaction.",
                writer.max_batch,
            ),
            ("watchbell_db_queued", Kind::Gauge, "Lists of statements that wait.", writer.queued),
        ] {
            metrics.family(name, kind, help).sample(&[], value as f64);
        }
        process(&mut metrics).await;
        Ok(metrics.finish())
    }
}

/// Memory and processor time of this process, where the system tells.
async fn process(metrics: &mut Metrics) {
    if let Ok(text) = tokio::fs::read_to_string("/proc/self/status").await {
        metrics
            .family("process_resident_memory_bytes", Kind::Gauge, "Resident memory.")
            .sample_if(&[], resident_bytes(&text));
    }
    if let Ok(text) = tokio::fs::read_to_string("/proc/self/stat").await {
        metrics
            .family("process_cpu_seconds_total", Kind::Counter, "Processor time spent.")
            .sample_if(&[], cpu_seconds(&text));
    }
}

/// From `VmRSS:     12345 kB`.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// From fields 14 and 15, counted behind the name, which may hold spaces and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2_097_152.0));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (x"), None);
    }
}
