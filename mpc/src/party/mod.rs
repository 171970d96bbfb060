//! The three roles of a private inference as processes: dealer, server and client.
//!
//! The client sends the server its [`Request`], which is public; both plan the program from it,
//! compare the plans' digests, and run. Preprocessing comes from a dealer on the line, whom both
//! tell the same request, or from a file each. `undertone party` is this module with arguments.

mod keys;
mod request;
mod roles;
mod task;

pub use keys::set_up;
pub use request::Request;
pub use roles::{Dealing, Finished, Preparation, ask, deal_files, serve_dealer, serve_one};
pub use task::{EMBEDDINGS, Task};
