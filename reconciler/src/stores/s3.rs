//! To come.
use aws_sdk_s3::Client;
/// Objects.
#[derive(Clone, Debug)]
pub struct S3Objects { client: Client, bucket: String }
impl S3Objects { 
/// New.
pub fn new(client: Client, bucket: &str) -> Self { Self { client, bucket: bucket.to_owned() } } }
