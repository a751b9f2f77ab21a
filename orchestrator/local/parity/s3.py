"""S3. A member has the same row in every operation, except where an operation says otherwise."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoMeaning, Refused, Row, Rows

ACLS = ("private", "bucket-owner-read", "bucket-owner-full-control")

OWNER = Honoured("the server's account; for another one the answer is AccessDenied")
UNENCRYPTED = NoMeaning("nothing is encrypted")
NO_GRANTS = Refused("buckets and objects belong to the server's one account: leave it out")
NO_LOCK = Refused("objects cannot be locked: leave it out")
CHECKED = NoMeaning("the body is read whole and counted in any case")
IF_MATCH_ONLY = Refused("give IfMatch instead")

ROWS: Mapping[str, Row] = {
    "ACL": Honoured("objects are their owner's", only=ACLS, why="only the holder of the server's credentials can read"),
    "AnnotationDirective": Refused("objects have no annotations"),
    "BucketKeyEnabled": UNENCRYPTED,
    "BucketNamespace": Refused("bucket names have one namespace: leave it out"),
    "BypassGovernanceRetention": NoMeaning("no object is retained"),
    "ChecksumAlgorithm": NoMeaning("the checksum says itself which algorithm it has"),
    "ContentLength": CHECKED,
    "CopySourceSSECustomerAlgorithm": UNENCRYPTED,
    "CopySourceSSECustomerKey": UNENCRYPTED,
    "CopySourceSSECustomerKeyMD5": UNENCRYPTED,
    "ExpectedBucketOwner": OWNER,
    "ExpectedSourceBucketOwner": OWNER,
    "GrantFullControl": NO_GRANTS,
    "GrantRead": NO_GRANTS,
    "GrantReadACP": NO_GRANTS,
    "GrantWrite": NO_GRANTS,
    "GrantWriteACP": NO_GRANTS,
    "IfMatchInitiatedTime": Refused("it is for directory buckets"),
    "IfMatchLastModifiedTime": IF_MATCH_ONLY,
    "IfMatchSize": IF_MATCH_ONLY,
    "MFA": NoMeaning("no bucket asks for a second factor"),
    "ObjectLockEnabledForBucket": NO_LOCK,
    "ObjectLockEventHold": NO_LOCK,
    "ObjectLockEventHoldDurationDays": NO_LOCK,
    "ObjectLockEventHoldDurationYears": NO_LOCK,
    "ObjectLockLegalHoldStatus": NO_LOCK,
    "ObjectLockMode": NO_LOCK,
    "ObjectLockRetainUntilDate": NO_LOCK,
    "ObjectOwnership": NoMeaning("the server has one account"),
    "OptionalObjectAttributes": NoMeaning("no object is restored from an archive"),
    "RequestPayer": NoMeaning("requests cost nothing"),
    "SSECustomerAlgorithm": UNENCRYPTED,
    "SSECustomerKey": UNENCRYPTED,
    "SSECustomerKeyMD5": UNENCRYPTED,
    "SSEKMSEncryptionContext": UNENCRYPTED,
    "SSEKMSKeyId": UNENCRYPTED,
    "ServerSideEncryption": UNENCRYPTED,
    "StorageClass": NoMeaning("the disk is this machine's"),
    "VersionId": Honoured("the only version", only=("null",), why="versions are not kept"),
    "WebsiteRedirectLocation": Refused("buckets are not served as websites"),
    "WriteOffsetBytes": Refused("objects cannot be appended to: put the whole object"),
}
"""Members that are not honoured everywhere, or of which more can be said than that."""

SSE_C = "SSECustomerAlgorithm SSECustomerKey SSECustomerKeyMD5"
SSE = f"ServerSideEncryption {SSE_C} SSEKMSKeyId SSEKMSEncryptionContext BucketKeyEnabled"
SOURCE_SSE = "CopySourceSSECustomerAlgorithm CopySourceSSECustomerKey CopySourceSSECustomerKeyMD5"
ALGORITHMS = "CRC32 CRC32C CRC64NVME SHA1 SHA256 SHA512 MD5 XXHASH64 XXHASH3 XXHASH128"
SUMS = " ".join(f"Checksum{algorithm}" for algorithm in ALGORITHMS.split())
LOCKED = " ".join(name for name in ROWS if name.startswith("ObjectLock") and name != "ObjectLockEnabledForBucket")
GRANTS = "ACL GrantFullControl GrantRead GrantReadACP GrantWriteACP"
DESCRIBED = "CacheControl ContentDisposition ContentEncoding ContentLanguage ContentType Expires Metadata Tagging"
MADE = f"{DESCRIBED} {SSE} StorageClass {GRANTS} WebsiteRedirectLocation {LOCKED}"
CONDITIONS = "IfMatch IfModifiedSince IfNoneMatch IfUnmodifiedSince"
SOURCE = f"CopySource {' '.join(f'CopySource{name}' for name in CONDITIONS.split())} {SOURCE_SSE}"
RESPONSE = " ".join(
    f"Response{name}"
    for name in ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires")
)
BUCKET = "Bucket ExpectedBucketOwner"
OBJECT = "Bucket Key ExpectedBucketOwner RequestPayer"
READ = f"{OBJECT} {CONDITIONS} Range {RESPONSE} VersionId {SSE_C} PartNumber ChecksumMode"
PAGED = f"{BUCKET} Delimiter EncodingType MaxKeys Prefix RequestPayer OptionalObjectAttributes"

PUT = f"{BUCKET} ContentMD5 ChecksumAlgorithm"
STORED = NoMeaning("stored and described: nothing is encrypted, and only the home's owner can read")
DESCRIBED_SETTINGS = (
    *("BucketAcl", "BucketCors", "BucketEncryption", "BucketLifecycleConfiguration"),
    *("BucketLogging", "BucketNotificationConfiguration", "BucketOwnershipControls", "BucketPolicy"),
    *("BucketPolicyStatus", "BucketReplication", "BucketRequestPayment", "BucketTagging", "BucketVersioning"),
    *("BucketWebsite", "ObjectLockConfiguration", "PublicAccessBlock"),
)
DELETED_SETTINGS = (
    *("BucketCors", "BucketEncryption", "BucketLifecycle", "BucketOwnershipControls", "BucketPolicy"),
    *("BucketReplication", "BucketTagging", "BucketWebsite", "PublicAccessBlock"),
)

TAGGING = Members({"TagSet": Members({"Key": Honoured(), "Value": Honoured()})})


def _rows(names: str, **own: Row) -> Rows:
    return {name: own.get(name) or ROWS.get(name) or Honoured() for name in (*names.split(), *own)}


S3: dict[str, Rows] = {
    "ListBuckets": _rows("MaxBuckets ContinuationToken Prefix BucketRegion"),
    "CreateBucket": _rows(
        f"Bucket {GRANTS} GrantWrite ObjectLockEnabledForBucket ObjectOwnership BucketNamespace",
        CreateBucketConfiguration=Members(
            {
                "LocationConstraint": Honoured("the server's region; for another one, as on AWS, an error"),
                "Location": Refused("it is for directory buckets"),
                "Bucket": Refused("it is for directory buckets"),
                "Tags": Refused("use PutBucketTagging"),
            }
        ),
    ),
    "HeadBucket": _rows(BUCKET),
    "DeleteBucket": _rows(BUCKET),
    "GetBucketLocation": _rows(BUCKET),
    "ListObjects": _rows(f"{PAGED} Marker"),
    "ListObjectVersions": _rows(f"{PAGED} KeyMarker VersionIdMarker"),
    "ListObjectsV2": _rows(f"{PAGED} ContinuationToken FetchOwner StartAfter"),
    "PutObject": _rows(
        f"{OBJECT} Body ContentLength ContentMD5 ChecksumAlgorithm {SUMS} IfMatch IfNoneMatch WriteOffsetBytes {MADE}"
    ),
    "GetObject": _rows(READ),
    "HeadObject": _rows(READ),
    "DeleteObject": _rows(
        f"{OBJECT} MFA VersionId BypassGovernanceRetention IfMatch IfMatchLastModifiedTime IfMatchSize"
    ),
    "DeleteObjects": _rows(
        f"{BUCKET} MFA RequestPayer BypassGovernanceRetention ChecksumAlgorithm",
        Delete=Members(
            {
                "Objects": Members(
                    {
                        **_rows("Key VersionId"),
                        "ETag": Honoured(),
                        "LastModifiedTime": Refused("give ETag instead"),
                        "Size": Refused("give ETag instead"),
                    }
                ),
                "Quiet": Honoured(),
            }
        ),
    ),
    "GetObjectAttributes": _rows(
        f"{OBJECT} VersionId {SSE_C} ObjectAttributes",
        MaxParts=Refused("only the number of parts is listed: use ListParts before the upload is completed"),
        PartNumberMarker=Refused("only the number of parts is listed: use ListParts before the upload is completed"),
    ),
    "GetObjectTagging": _rows(f"{OBJECT} VersionId"),
    "PutObjectTagging": _rows(f"{OBJECT} VersionId ContentMD5 ChecksumAlgorithm", Tagging=TAGGING),
    "DeleteObjectTagging": _rows(f"{BUCKET} Key VersionId"),
    "CopyObject": _rows(
        f"{OBJECT} ExpectedSourceBucketOwner {SOURCE} IfMatch IfNoneMatch MetadataDirective TaggingDirective"
        f" AnnotationDirective {MADE}",
        ChecksumAlgorithm=Honoured("the checksum that the copy gets"),
    ),
    "CreateMultipartUpload": _rows(
        f"{OBJECT} ChecksumType {MADE}",
        ChecksumAlgorithm=Honoured("the checksum that the object gets"),
    ),
    "UploadPart": _rows(f"{OBJECT} Body ContentLength ContentMD5 ChecksumAlgorithm {SUMS} PartNumber UploadId {SSE_C}"),
    "UploadPartCopy": _rows(f"{OBJECT} ExpectedSourceBucketOwner {SOURCE} CopySourceRange PartNumber UploadId {SSE_C}"),
    "CompleteMultipartUpload": _rows(
        f"{OBJECT} UploadId {SUMS} ChecksumType MpuObjectSize IfMatch IfNoneMatch {SSE_C}",
        MultipartUpload=Members({"Parts": Members(_rows(f"ETag PartNumber {SUMS}"))}),
    ),
    "AbortMultipartUpload": _rows(f"{OBJECT} UploadId IfMatchInitiatedTime"),
    "ListParts": _rows(f"{OBJECT} MaxParts PartNumberMarker UploadId {SSE_C}"),
    "ListMultipartUploads": _rows(
        f"{BUCKET} EncodingType KeyMarker MaxUploads Prefix RequestPayer UploadIdMarker",
        Delimiter=Refused("the list is flat: leave it out"),
    ),
    **{f"Get{name}": _rows(BUCKET) for name in DESCRIBED_SETTINGS},
    "GetBucketAccelerateConfiguration": _rows(f"{BUCKET} RequestPayer"),
    **{f"Delete{name}": _rows(BUCKET) for name in DELETED_SETTINGS},
    "PutBucketEncryption": _rows(PUT, ServerSideEncryptionConfiguration=STORED),
    "PutPublicAccessBlock": _rows(PUT, PublicAccessBlockConfiguration=STORED),
    "PutBucketOwnershipControls": _rows(PUT, OwnershipControls=STORED),
    "PutBucketTagging": _rows(PUT, Tagging=TAGGING),
    "PutBucketPolicy": _rows(PUT, ConfirmRemoveSelfBucketAccess=STORED, Policy=STORED),
    "PutBucketVersioning": _rows(
        f"{PUT} MFA",
        VersioningConfiguration=Members(
            {
                "Status": Honoured("no versions are kept", only=("Suspended",), why="versions are not kept"),
                "MFADelete": Honoured("no second factor is asked for", only=("Disabled",), why="it needs versions"),
            }
        ),
    ),
    "PutBucketAcl": _rows(f"{PUT} {GRANTS} GrantWrite", AccessControlPolicy=NO_GRANTS),
    "GetObjectAcl": _rows(f"{OBJECT} VersionId"),
    "PutObjectAcl": _rows(
        f"{OBJECT} VersionId ContentMD5 ChecksumAlgorithm {GRANTS} GrantWrite", AccessControlPolicy=NO_GRANTS
    ),
}
