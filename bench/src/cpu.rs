//! What this process has cost so far.

/// User and system time, where /proc tells (proc(5): fields 14 and 15 of stat, in ticks of 1/100 s, counted after the
/// name in brackets).
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / 100.0)
}
