//! The ports on local disk and on AWS.
