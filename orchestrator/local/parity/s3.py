"""Parity rows of S3. A member has the same row in every operation, unless the operation has its own row for it."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

SSE_C = "SSECustomerAlgorithm SSECustomerKey SSECustomerKeyMD5"
SSE = f"ServerSideEncryption {SSE_C} SSEKMSKeyId SSEKMSEncryptionContext BucketKeyEnabled"
SOURCE_SSE = "CopySourceSSECustomerAlgorithm CopySourceSSECustomerKey CopySourceSSECustomerKeyMD5"
LOCKED = (
    "ObjectLockEventHold ObjectLockEventHoldDurationDays ObjectLockEventHoldDurationYears"
    " ObjectLockLegalHoldStatus ObjectLockMode ObjectLockRetainUntilDate"
)
GRANTS = "ACL GrantFullControl GrantRead GrantReadACP GrantWriteACP"
DIRECTORY_BUCKET = Refused("directory buckets are not supported")
NO_GRANTS = Refused("buckets and objects belong to the server's one account: remove it")

ROWS: Mapping[str, Row] = {
    **dict.fromkeys(f"{SSE} {SOURCE_SSE}".split(), NoEffect("nothing is encrypted")),
    **dict.fromkeys(f"{LOCKED} ObjectLockEnabledForBucket".split(), Refused("objects cannot be locked: remove it")),
    **dict.fromkeys(f"{GRANTS} GrantWrite".split(), NO_GRANTS),
    **dict.fromkeys(("IfMatchLastModifiedTime", "IfMatchSize"), Refused("use IfMatch instead")),
    **dict.fromkeys(
        ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"),
        Honoured("the server's account; for other accounts the error is AccessDenied"),
    ),
    "ACL": Honoured(
        "only the owner can access an object",
        values=("private", "bucket-owner-read", "bucket-owner-full-control"),
        reason="only the holder of the server's credentials can read",
    ),
    "AnnotationDirective": Refused("objects have no annotations"),
    "BucketNamespace": Refused("bucket names have one namespace: remove it"),
    "BypassGovernanceRetention": NoEffect("no object is retained"),
    "ChecksumAlgorithm": NoEffect("the checksum's own header names the algorithm"),
    "ContentLength": NoEffect("the size of the body is always counted"),
    "IfMatchInitiatedTime": DIRECTORY_BUCKET,
    "MFA": NoEffect("no bucket requires a second factor"),
    "ObjectOwnership": NoEffect("the server has one account"),
    "OptionalObjectAttributes": NoEffect("no object is restored from an archive"),
    "RequestPayer": NoEffect("requests cost nothing"),
    "StorageClass": NoEffect("objects use this machine's disk"),
    "VersionId": Honoured("the only version", values=("null",), reason="versions are not kept"),
    "WebsiteRedirectLocation": Refused("buckets are not served as websites"),
    "WriteOffsetBytes": Refused("appending is not supported: put the whole object"),
}
"""Default rows of members, for operations without an own row. The default of other members is `Honoured()`."""

ALGORITHMS = "CRC32 CRC32C CRC64NVME SHA1 SHA256 SHA512 MD5 XXHASH64 XXHASH3 XXHASH128"
SUMS = " ".join(f"Checksum{algorithm}" for algorithm in ALGORITHMS.split())
DESCRIBED = "CacheControl ContentDisposition ContentEncoding ContentLanguage ContentType Expires Metadata Tagging"
NEW = f"{DESCRIBED} {SSE} StorageClass {GRANTS} WebsiteRedirectLocation {LOCKED}"
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
STORED = NoEffect("stored and described; nothing is encrypted, and only the home's owner can read")
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

NO_PARTS = Refused("only the number of parts is listed: use ListParts before the upload is completed")
TAGGING = Members({"TagSet": Members({"Key": Honoured(), "Value": Honoured()})})


def _rows(names: str, **own: Row) -> Rows:
    return {name: own.get(name) or ROWS.get(name) or Honoured() for name in (*names.split(), *own)}


S3: dict[str, Rows] = {
    "ListBuckets": _rows("MaxBuckets ContinuationToken Prefix BucketRegion"),
    "CreateBucket": _rows(
        f"Bucket {GRANTS} GrantWrite ObjectLockEnabledForBucket ObjectOwnership BucketNamespace",
        CreateBucketConfiguration=Members(
            {
                "LocationConstraint": Honoured("the server's region; another one is an error, as on AWS"),
                "Location": DIRECTORY_BUCKET,
                "Bucket": DIRECTORY_BUCKET,
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
        f"{OBJECT} Body ContentLength ContentMD5 ChecksumAlgorithm {SUMS} IfMatch IfNoneMatch WriteOffsetBytes {NEW}"
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
                        "LastModifiedTime": Refused("use ETag instead"),
                        "Size": Refused("use ETag instead"),
                    }
                ),
                "Quiet": Honoured(),
            }
        ),
    ),
    "GetObjectAttributes": _rows(
        f"{OBJECT} VersionId {SSE_C} ObjectAttributes",
        MaxParts=NO_PARTS,
        PartNumberMarker=NO_PARTS,
    ),
    "GetObjectTagging": _rows(f"{OBJECT} VersionId"),
    "PutObjectTagging": _rows(f"{OBJECT} VersionId ContentMD5 ChecksumAlgorithm", Tagging=TAGGING),
    "DeleteObjectTagging": _rows(f"{BUCKET} Key VersionId"),
    "CopyObject": _rows(
        f"{OBJECT} ExpectedSourceBucketOwner {SOURCE} IfMatch IfNoneMatch MetadataDirective TaggingDirective"
        f" AnnotationDirective {NEW}",
        ChecksumAlgorithm=Honoured("algorithm of the copy's checksum"),
    ),
    "CreateMultipartUpload": _rows(
        f"{OBJECT} ChecksumType {NEW}",
        ChecksumAlgorithm=Honoured("algorithm of the object's checksum"),
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
        Delimiter=Refused("the list has no common prefixes: remove it"),
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
                "Status": Honoured(values=("Suspended",), reason="versions are not kept"),
                "MFADelete": Honoured(values=("Disabled",), reason="versions are not kept"),
            }
        ),
    ),
    "PutBucketAcl": _rows(f"{PUT} {GRANTS} GrantWrite", AccessControlPolicy=NO_GRANTS),
    "GetObjectAcl": _rows(f"{OBJECT} VersionId"),
    "PutObjectAcl": _rows(
        f"{OBJECT} VersionId ContentMD5 ChecksumAlgorithm {GRANTS} GrantWrite", AccessControlPolicy=NO_GRANTS
    ),
}
