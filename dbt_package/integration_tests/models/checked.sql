{{ config(materialized='mistral_batch', custom_id='id', output='STRUCT(mood VARCHAR)', contract={'enforced': true}) }}
SELECT id, body AS prompt FROM {{ ref('tickets') }}
