//! What a report turns into: CSV with SCALE-Sim's columns, a Perfetto trace,
//! VCD of the schedule or of one operator's dataflow, and a page that stands alone.

mod csv;
mod html;
mod perfetto;
mod wave;

pub use csv::{bandwidth_report, compute_report};
pub use html::html;
pub use perfetto::perfetto;
pub use wave::{schedule_vcd, vcd};
