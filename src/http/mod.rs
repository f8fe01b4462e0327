//! HTTP from the client's side: connections, exchanges, and the pipeline that every request goes through.
