//! The local REST server. Nothing is here yet; see the README for what works.
