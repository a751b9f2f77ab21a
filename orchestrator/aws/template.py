"""CloudFormation template of the resources that the workflows need in an account: a role, a bucket, repositories.

The permissions of an execution role:
https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
"""

from collections.abc import Iterable
from typing import Any

from microjobs_orchestrator.push.destination import DEFAULT_PREFIX
from microjobs_orchestrator.push.ecr import LIFECYCLE_POLICY

Json = dict[str, Any]

NETWORK_ACTIONS = [
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
]


STEP_ACTIONS = [
    "sagemaker:AddTags",
    *(
        f"sagemaker:{verb}{noun}"
        for noun in ("ProcessingJob", "TrainingJob", "HyperParameterTuningJob")
        for verb in ("Create", "Describe", "Stop")
    ),
    *(f"sagemaker:{verb}{noun}" for noun in ("ModelPackageGroup", "ModelPackage") for verb in ("Create", "Describe")),
    "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
]
"""The actions with which a pipeline runs the steps of a workflow."""


def make_template(jobs: Iterable[str]) -> Json:
    """Return the template, with one repository per job."""
    repositories = {f"Repository{job.title().replace('-', '')}": make_repository(job) for job in jobs}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Resources that microjobs needs to run on SageMaker: a role, a bucket, repositories",
        "Parameters": PARAMETERS,
        "Conditions": {
            "HasKey": {"Fn::Not": [{"Fn::Equals": [{"Ref": "KmsKeyArn"}, ""]}]},
            "InVpc": {"Fn::Equals": [{"Ref": "Vpc"}, "true"]},
            "HasPipelines": {"Fn::Equals": [{"Ref": "Pipelines"}, "true"]},
        },
        "Resources": {
            "Bucket": BUCKET,
            "BucketPolicy": BUCKET_POLICY,
            **repositories,
            "Role": make_role(list(repositories)),
        },
        "Outputs": {
            "Region": {"Value": {"Ref": "AWS::Region"}},
            "Role": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}},
            "Bucket": {"Value": {"Ref": "Bucket"}},
        },
    }


PARAMETERS: Json = {
    "Prefix": {
        "Type": "String",
        "Default": "microjobs",
        "AllowedPattern": "[A-Za-z0-9._/-]*[A-Za-z0-9._-]",
        "Description": "The folder of the bucket that jobs may use: `prefix` in microjobs.toml",
    },
    "KmsKeyArn": {
        "Type": "String",
        "Default": "",
        "Description": "The key of `kms_key` in microjobs.toml, if you set one",
    },
    "Vpc": {
        "Type": "String",
        "Default": "false",
        "AllowedValues": ["true", "false"],
        "Description": "Whether jobs run in a VPC: `subnets` in microjobs.toml",
    },
    "Pipelines": {
        "Type": "String",
        "Default": "false",
        "AllowedValues": ["true", "false"],
        "Description": "Whether pipelines run with the role: `--as-pipeline`. The code of jobs can then create jobs",
    },
}

BUCKET: Json = {
    "Type": "AWS::S3::Bucket",
    # AWS refuses to delete a stack whose bucket has objects, so deleting the stack never deletes data.
    "DeletionPolicy": "Delete",
    "UpdateReplacePolicy": "Retain",
    "Properties": {
        "BucketName": {"Fn::Sub": "microjobs-${AWS::AccountId}-${AWS::Region}"},
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {
                    "BucketKeyEnabled": True,
                    "ServerSideEncryptionByDefault": {
                        "SSEAlgorithm": {"Fn::If": ["HasKey", "aws:kms", "AES256"]},
                        "KMSMasterKeyID": {"Fn::If": ["HasKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]},
                    },
                }
            ]
        },
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        },
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "Id": "parts-of-broken-uploads",
                    "Status": "Enabled",
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                }
            ]
        },
    },
}

BUCKET_POLICY: Json = {
    "Type": "AWS::S3::BucketPolicy",
    "Properties": {
        "Bucket": {"Ref": "Bucket"},
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "OnlyTLS",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [{"Fn::GetAtt": ["Bucket", "Arn"]}, {"Fn::Sub": "${Bucket.Arn}/*"}],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        },
    },
}


def make_repository(job: str) -> Json:
    """Return the repository of a job, with the settings that `microjobs push` uses."""
    return {
        "Type": "AWS::ECR::Repository",
        "Properties": {
            "RepositoryName": f"{DEFAULT_PREFIX}/{job}",
            "ImageTagMutability": "IMMUTABLE",
            "ImageScanningConfiguration": {"ScanOnPush": True},
            "LifecyclePolicy": {"LifecyclePolicyText": LIFECYCLE_POLICY},
            "EmptyOnDelete": True,
        },
    }


def make_role(repositories: Iterable[str]) -> Json:
    """Return the execution role of the jobs. The role may pull images from these repositories of the template."""
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": {"Fn::Sub": "microjobs-${AWS::Region}"},
            "AssumeRolePolicyDocument": TRUST_POLICY,
            "Policies": [
                {
                    "PolicyName": "jobs",
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": make_statements(repositories)},
                }
            ],
        },
    }


TRUST_POLICY: Json = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
            # SageMaker may use the role only on behalf of this account:
            # https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
            "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
        }
    ],
}


def make_statements(repositories: Iterable[str]) -> list[Json]:
    """Return the permissions of the role. A resource is `*` only if a narrower resource is not possible."""
    logs = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/sagemaker/*"
    return [
        _allow(
            "Objects",
            ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
            {"Fn::Sub": "${Bucket.Arn}/${Prefix}/*"},
        ),
        {
            **_allow("Keys", ["s3:ListBucket"], {"Fn::GetAtt": ["Bucket", "Arn"]}),
            "Condition": {"StringLike": {"s3:prefix": [{"Fn::Sub": "${Prefix}/*"}]}},
        },
        _allow("BucketRegion", ["s3:GetBucketLocation"], {"Fn::GetAtt": ["Bucket", "Arn"]}),
        _allow("RegistryToken", ["ecr:GetAuthorizationToken"], "*"),
        _allow(
            "Images",
            ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            [{"Fn::GetAtt": [name, "Arn"]} for name in repositories],
        ),
        _allow(
            "Logs",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            {"Fn::Sub": logs},
        ),
        {
            **_allow("Metrics", ["cloudwatch:PutMetricData"], "*"),
            "Condition": {"StringLike": {"cloudwatch:namespace": ["aws/sagemaker/*", "/aws/sagemaker/*"]}},
        },
        _include_if(
            "HasKey", _allow("Key", ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKey"], {"Ref": "KmsKeyArn"})
        ),
        # Describe actions accept no narrower resource, and SageMaker chooses the names of network interfaces.
        _include_if("InVpc", _allow("Network", NETWORK_ACTIONS, "*")),
        *(_include_if("HasPipelines", statement) for statement in PIPELINE_STATEMENTS),
    ]


def _format_arn(service: str, resource: str, region: str = "${AWS::Region}") -> Json:
    return {"Fn::Sub": f"arn:${{AWS::Partition}}:{service}:{region}:${{AWS::AccountId}}:{resource}"}


def _allow(sid: str, actions: list[str], resource: object) -> Json:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}


def _include_if(condition: str, statement: Json) -> Json:
    return {"Fn::If": [condition, statement, {"Ref": "AWS::NoValue"}]}


STEP_RESOURCES = (
    "processing-job",
    "training-job",
    "hyper-parameter-tuning-job",
    "model-package-group",
    "model-package",
)

PIPELINE_STATEMENTS = [
    _allow("Steps", STEP_ACTIONS, [_format_arn("sagemaker", f"{name}/*") for name in STEP_RESOURCES]),
    {
        **_allow("RoleOfSteps", ["iam:PassRole"], _format_arn("iam", "role/microjobs-${AWS::Region}", region="")),
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    },
]
"""The permissions with which a pipeline runs its steps:
https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-access.html"""
